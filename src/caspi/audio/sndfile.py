"""Decodes mp3, WAV and FLAC with libsndfile, two to three times as fast as FFmpeg."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile

from caspi.audio.base import BLOCK, AudioError
from caspi.audio.downmix import Downmix
from caspi.audio.headers import truncation_ratio
from caspi.audio.mp3 import is_mp3, split_joined_mp3
from caspi.audio.raw_bytes import read_bytes
from caspi.audio.resampling import resample_blocks
from caspi.audio.stream import Findings, Stream

_MIN_SAMPLE_RATE, _MAX_SAMPLE_RATE = 1_000, 768_000  # Hz: a header with a rate outside this range is wrong
_MAX_FRAMES = 1 << 40  # more is a damaged header, or a stream of unknown length


def open_sndfile(source: bytes | Path, name: str, channel: int | None) -> Stream | None:
    """None if the file has another format or libsndfile cannot open it."""
    if not _has_sndfile_format(source):
        return None
    parts = split_joined_mp3(source) if is_mp3(read_bytes(source)) else []
    if not parts:
        return _sndfile_stream(source, name, channel)
    opened = [_sndfile_stream(part, name, channel) for part in parts]
    streams = [stream for stream in opened if stream is not None]  # the data after the first file may not be audio
    if not streams:
        return None
    return replace(
        streams[0],
        declared=sum(stream.declared or 0.0 for stream in streams),
        blocks=itertools.chain.from_iterable(stream.blocks for stream in streams),
    )


def _has_sndfile_format(source: bytes | Path) -> bool:
    head = read_bytes(source)
    return is_mp3(head) or head[:4] == b"fLaC" or (head[:4] == b"RIFF" and head[8:12] == b"WAVE")


def _sndfile_stream(source: bytes | Path, name: str, channel: int | None) -> Stream | None:
    try:
        file = soundfile.SoundFile(io.BytesIO(source) if isinstance(source, bytes) else str(source))
    except (soundfile.LibsndfileError, RuntimeError):
        return None
    if file.samplerate < _MIN_SAMPLE_RATE or file.samplerate > _MAX_SAMPLE_RATE:
        raise AudioError("corrupt_audio", f"{name}: a sample rate of {file.samplerate} Hz")
    if file.frames == 0:  # a header without a length: FFmpeg reads to the end
        file.close()
        return None
    findings = Findings()
    declared = file.frames / file.samplerate if 0 < file.frames < _MAX_FRAMES else None
    return Stream(
        sample_rate=file.samplerate,
        channels=file.channels,
        declared=declared and declared * truncation_ratio(source),
        blocks=_sndfile_blocks(file, Downmix(name, findings), channel),
        findings=findings,
    )


def _sndfile_blocks(file: soundfile.SoundFile, downmix: Downmix, channel: int | None) -> Iterator[np.ndarray]:
    def blocks() -> Iterator[np.ndarray]:
        buffer = np.empty((BLOCK, file.channels), np.float32)
        with file:
            while len(block := file.read(out=buffer)):
                yield block

    if channel is None:
        mono = downmix.mono(blocks(), file.samplerate)
    else:
        mono = (np.ascontiguousarray(block[:, channel]) for block in blocks())
    return resample_blocks(mono, file.samplerate)
