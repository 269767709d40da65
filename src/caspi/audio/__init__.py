"""Decodes audio to mono float32 at 16 kHz, or gives a named reason for failure."""

from caspi.audio.base import SAMPLE_RATE, AudioError, Seconds
from caspi.audio.flac import decode_flac, encode_flac, pcm16
from caspi.audio.reading import decode, open_stream, read
from caspi.audio.resampling import resample
from caspi.audio.stream import MEANING, SLACK, Stream

__all__ = [
    "MEANING",
    "SAMPLE_RATE",
    "SLACK",
    "AudioError",
    "Seconds",
    "Stream",
    "decode",
    "decode_flac",
    "encode_flac",
    "open_stream",
    "pcm16",
    "read",
    "resample",
]
