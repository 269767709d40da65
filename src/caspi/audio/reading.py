"""Opens and reads a file of any format: mono float32 at 16 kHz, or an error with a named reason."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import soundfile

from caspi.audio.base import SAMPLE_RATE, AudioError, Seconds
from caspi.audio.ffmpeg import open_ffmpeg
from caspi.audio.headers import failed_download, has_trailing_data
from caspi.audio.raw_bytes import read_bytes, size_in_bytes
from caspi.audio.sndfile import open_sndfile
from caspi.audio.stream import Note, Stream

_MAX_PREALLOCATED = 12 * 3600.0  # seconds of memory, by the header's length; unused memory is never touched


def decode(source: bytes | Path) -> np.ndarray:
    """Decodes any container and codec to float32 [n], mono at 16 kHz.

    Raises AudioError with the reason `missing_audio`, `corrupt_audio`, `no_audio_stream`, `empty_audio`,
    `non_finite_audio` or `out_of_phase`.
    """
    return read(source)[0]


def read(source: bytes | Path, channel: int | None = None) -> tuple[np.ndarray, list[Note]]:
    """Like `decode`, of one channel if it is given; also returns warnings about the file."""
    stream = open_stream(source, channel)
    samples = _joined(stream.blocks, stream.declared)
    return samples, stream.findings.notes(stream.declared)


def _joined(blocks: Iterator[np.ndarray], declared: Seconds | None) -> np.ndarray:
    """Joins blocks into one array without a second copy: of the declared length, doubled whenever it is too short."""
    preallocated = declared if declared is not None and declared < _MAX_PREALLOCATED else 0.0
    samples, count = np.empty(int((preallocated + 1) * SAMPLE_RATE), np.float32), 0
    for block in blocks:
        if count + len(block) > len(samples):
            samples = np.concatenate([samples[:count], np.empty(count + 2 * len(block), np.float32)])
        samples[count : count + len(block)] = block
        count += len(block)
    return samples[:count]


def open_stream(source: bytes | Path, channel: int | None = None) -> Stream:
    """Opens a file, or the bytes of one. Raises AudioError as `decode` does, here or while the blocks are read.

    channel: only this one, from 0; by default the mean of all, or the loudest if they cancel each other. Gaps in a
    file's time stamps become silence, so that times stay correct. libsndfile reads mp3, WAV and FLAC, two to three
    times as fast as FFmpeg, which reads all other formats.
    """
    name = str(source) if isinstance(source, Path) else f"{len(source)} bytes"
    try:
        if size_in_bytes(source) == 0:
            raise AudioError("empty_audio", f"0 bytes: {name}")
        if problem := failed_download(read_bytes(source, 256)):
            raise AudioError("corrupt_audio", f"{name}: {problem}")
        stream = open_sndfile(source, name, channel) or open_ffmpeg(source, name, channel)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise AudioError("corrupt_audio", f"{name}: {error}") from error
    if channel is not None and channel >= stream.channels:
        raise AudioError("corrupt_audio", f"{name}: channel {channel} does not exist, it has {stream.channels}")
    stream.findings.more_follows = has_trailing_data(source)
    return replace(stream, blocks=_checked(stream, name))


def _checked(stream: Stream, name: str) -> Iterator[np.ndarray]:
    """Passes blocks on; checks that they are not empty and finite, and adds the file name to decoder errors."""
    count = 0
    findings = stream.findings
    try:
        for block in stream.blocks:
            if block.size:
                if not np.isfinite(block.sum()) and not np.isfinite(block).all():
                    raise AudioError("non_finite_audio", name)
                count += block.size
                findings.seconds = count / SAMPLE_RATE
                yield block
    except (av.FFmpegError, soundfile.LibsndfileError, OSError, ValueError) as error:
        raise AudioError("corrupt_audio", f"{name}: {error}") from error
    if count == 0:
        raise AudioError("empty_audio", name)
