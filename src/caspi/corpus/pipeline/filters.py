"""Which utterances are kept. Every rejection has exactly one reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from caspi.audio import Seconds
from caspi.config import Config
from caspi.corpus.signals import Signals
from caspi.language.base import LookalikeReason, TextReason

Reason = (
    Literal[
        "bad_row", "missing_text", "missing_audio", "corrupt_audio", "no_audio_stream", "empty_audio",
        "non_finite_audio",
        "out_of_phase", "truncated_audio", "damaged_audio", "decoder_crashed", "long_without_times",
        "times_outside_audio",
        "too_short", "too_long", "silent", "mostly_silence", "clipped", "narrow_band", "noisy", "low_quality",
        "empty_text", "not_in_language", "too_fast", "too_slow", "repeated_text",
        "duplicate_id", "duplicate_audio", "leak",
    ]
    | TextReason
    | LookalikeReason
)  # fmt: skip
SILENCE_DB = -60.0  # dBFS of the loudest sample; below it the clip is silent


class Filters(Config):
    """Conditions that an utterance must meet to be kept.

    The limits on characters per second hold for every source. `rate_deviations` is an additional limit: robust standard
    deviations of the logarithm around the source's own median (0: off). Shares are of samples (clipping), of 32 ms
    frames (silence), of letters (script). min_quality: of the source's own score, if it has one.
    max_repeats: maximum number of utterances with (nearly) the same text of four words or more.
    """

    min_seconds: Seconds = Field(0.5, ge=0)
    max_seconds: Seconds = Field(30.0, gt=0)
    min_characters_per_second: float = Field(1.0, ge=0)
    max_characters_per_second: float = Field(30.0, gt=0)
    rate_deviations: float = Field(6.0, ge=0)
    min_script_share: float = Field(0.5, ge=0, le=1)
    max_silence: float = Field(0.95, ge=0, le=1)
    max_clipping: float = Field(0.1, ge=0, le=1)
    min_bandwidth_hz: float = Field(0.0, ge=0)
    min_snr_db: float = Field(0.0, ge=0)
    min_quality: float | None = None
    max_repeats: int = Field(50, ge=1)


@dataclass(frozen=True, slots=True)
class ClipLengths:
    """The input of a filter: the text as used in training, and its share of letters in the language's script."""

    seconds: Seconds
    text: str
    script_share: float
    signals: Signals
    quality: float | None


def reject(heard: ClipLengths, limits: Filters) -> Reason | None:
    """The first reason to reject an utterance, or None."""
    reasons: tuple[tuple[bool, Reason], ...] = (
        (not heard.text, "empty_text"),
        (heard.seconds < limits.min_seconds, "too_short"),
        (heard.seconds > limits.max_seconds, "too_long"),
        (heard.script_share < limits.min_script_share, "not_in_language"),
        (heard.signals.peak_db < SILENCE_DB, "silent"),
        (len(heard.text) > limits.max_characters_per_second * heard.seconds, "too_fast"),
        (len(heard.text) < limits.min_characters_per_second * heard.seconds, "too_slow"),
        (heard.signals.silence > limits.max_silence, "mostly_silence"),
        (heard.signals.clipping > limits.max_clipping, "clipped"),
        (heard.signals.bandwidth_hz < limits.min_bandwidth_hz, "narrow_band"),
        (heard.signals.snr_db < limits.min_snr_db, "noisy"),
        (_is_below(heard.quality, limits.min_quality), "low_quality"),
    )
    return next((reason for applies, reason in reasons if applies), None)


def _is_below(quality: float | None, limit: float | None) -> bool:
    return quality is not None and limit is not None and quality < limit
