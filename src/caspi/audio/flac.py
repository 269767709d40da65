"""16-bit samples, and FLAC: the format of the corpus."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator

import numpy as np
import soundfile

from caspi.audio.base import SAMPLE_RATE, AudioError


def pcm16(samples: np.ndarray) -> np.ndarray:
    """float32 [n] to int16 [n], clipped to [-1, 1); int16 stays as it is."""
    if samples.dtype == np.int16:
        return samples
    return np.clip(np.round(samples * 32768.0), -32768, 32767).astype(np.int16)


@contextlib.contextmanager
def _as_file(data: bytes) -> Iterator[int | io.BytesIO]:
    """The bytes as something that libsndfile reads: a file in memory where the system has that. It reads such a file by
    itself; for every block of a Python object it must wait for the interpreter, which a busy main thread holds."""
    if not hasattr(os, "memfd_create"):
        yield io.BytesIO(data)
        return
    file = os.memfd_create("flac")
    try:
        os.write(file, data)
        os.lseek(file, 0, os.SEEK_SET)
        yield file
    finally:
        os.close(file)


def encode_flac(samples: np.ndarray) -> bytes:
    """float32 or int16 [n] at 16 kHz to 16-bit FLAC."""
    buffer = io.BytesIO()
    soundfile.write(buffer, pcm16(samples), SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


def decode_flac(data: bytes) -> np.ndarray:
    """Decodes the output of `encode_flac` to float32 [n]."""
    with _as_file(data) as file:
        samples, rate = soundfile.read(file, dtype="float32", closefd=False)
    if rate != SAMPLE_RATE or samples.ndim != 1:
        raise AudioError("corrupt_audio", f"expected 16 kHz mono FLAC, found {rate} Hz, {samples.ndim} dimensions")
    return samples
