"""The sample rate, the unit of time, and the error of an audio file that cannot be read."""

from __future__ import annotations

from caspi.errors import CaspiError

Seconds = float

SAMPLE_RATE = 16_000  # Hz: the only rate that the model accepts
BLOCK = 1 << 16  # samples at a time: few calls, but fits the cache


class AudioError(CaspiError):
    """`reason` is one of a few fixed words, so that rejections can be counted."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail

    def __reduce__(self) -> tuple[object, ...]:
        return AudioError, (self.reason, self.detail)
