"""Which utterances are kept. Every rejection has exactly one reason."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from caspi.audio import Seconds
from caspi.config import Config

Reason = Literal[
    "missing_audio", "corrupt_audio", "no_audio_stream", "empty_audio", "non_finite_audio",
    "long_without_times", "times_outside_audio", "too_short", "too_long", "silent",
    "empty_text", "not_in_language", "too_fast", "too_slow", "duplicate_id",
]  # fmt: skip

SILENCE_PEAK = 10 ** (-60 / 20)  # -60 dBFS: below it nothing was recorded


class Filters(Config):
    """Seconds and characters a second an utterance may have; `script_share` of its letters must be its language's."""

    min_seconds: Seconds = Field(0.5, ge=0)
    max_seconds: Seconds = Field(30.0, gt=0)
    min_characters_per_second: float = Field(1.0, ge=0)
    max_characters_per_second: float = Field(30.0, gt=0)
    min_script_share: float = Field(0.5, ge=0, le=1)


def reject(samples: np.ndarray, seconds: Seconds, text: str, script_share: float, limits: Filters) -> Reason | None:
    """The first reason to leave an utterance out, or None. Text is as it will be trained on."""
    if not text:
        return "empty_text"
    if seconds < limits.min_seconds:
        return "too_short"
    if seconds > limits.max_seconds:
        return "too_long"
    if script_share < limits.min_script_share:
        return "not_in_language"
    if float(np.abs(samples).max(initial=0.0)) < SILENCE_PEAK:
        return "silent"
    rate = len(text) / seconds
    if rate > limits.max_characters_per_second:
        return "too_fast"
    if rate < limits.min_characters_per_second:
        return "too_slow"
    return None
