"""Bytes to mono float32 at 16 kHz, or a named reason why not."""

from __future__ import annotations

import io
from pathlib import Path

import av
import numpy as np
import soundfile
import soxr

from caspi.errors import CaspiError

Seconds = float

SAMPLE_RATE = 16_000  # Hz: the only rate the model knows


class AudioError(CaspiError):
    """`reason` is one of a few fixed words, so that rejections can be counted."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self._detail = detail

    def __reduce__(self) -> tuple[object, ...]:
        return AudioError, (self.reason, self._detail)


def decode(source: bytes | Path) -> np.ndarray:
    """Any container and codec FFmpeg knows, to float32 [n] mono at 16 kHz.

    Raises AudioError with the reason `missing_audio`, `corrupt_audio`, `no_audio_stream`, `empty_audio`
    or `non_finite_audio`.
    """
    name = str(source) if isinstance(source, Path) else f"{len(source)} bytes"
    if isinstance(source, Path) and not source.is_file():
        raise AudioError("missing_audio", f"{'a folder' if source.is_dir() else 'no such file'}: {name}")
    if (source.stat().st_size if isinstance(source, Path) else len(source)) == 0:
        raise AudioError("empty_audio", f"0 bytes: {name}")
    resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE)
    blocks: list[np.ndarray] = []
    try:
        with av.open(io.BytesIO(source) if isinstance(source, bytes) else str(source)) as container:
            if not container.streams.audio:
                raise AudioError("no_audio_stream", name)
            for frame in container.decode(container.streams.audio[0]):
                frame.pts = None  # timestamps of damaged files are not monotonic; order is enough
                blocks.extend(block.to_ndarray()[0] for block in resampler.resample(frame))
            blocks.extend(block.to_ndarray()[0] for block in resampler.resample(None))
    except (av.FFmpegError, ValueError) as error:
        raise AudioError("corrupt_audio", f"{name}: {error}") from error
    samples = np.concatenate(blocks) if blocks else np.zeros(0, np.float32)
    if samples.size == 0:
        raise AudioError("empty_audio", name)
    if not np.isfinite(samples).all():
        raise AudioError("non_finite_audio", name)
    return samples


def resample(samples: np.ndarray, rate: int) -> np.ndarray:
    """float32 [n] at `rate` Hz to float32 at 16 kHz."""
    return samples if rate == SAMPLE_RATE else soxr.resample(samples, rate, SAMPLE_RATE)


def encode_flac(samples: np.ndarray) -> bytes:
    """float32 [n] at 16 kHz to 16-bit FLAC, clipped to [-1, 1)."""
    buffer = io.BytesIO()
    pcm = np.clip(np.round(samples * 32768.0), -32768, 32767).astype(np.int16)
    soundfile.write(buffer, pcm, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


def decode_flac(data: bytes) -> np.ndarray:
    """What `encode_flac` wrote, as float32 [n]."""
    samples, rate = soundfile.read(io.BytesIO(data), dtype="float32")
    if rate != SAMPLE_RATE or samples.ndim != 1:
        raise AudioError("corrupt_audio", f"expected 16 kHz mono FLAC, found {rate} Hz, {samples.ndim} dimensions")
    return samples
