"""Which utterances are kept. Every rejection has exactly one reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from caspi.config import Config, Seconds, Unit
from caspi.corpus.signals import Signals
from caspi.language.base import LookalikeReason, TextReason

Reason = (
    Literal[
        "bad_row", "missing_text", "missing_audio", "corrupt_audio", "no_audio_stream", "empty_audio",
        "non_finite_audio",
        "out_of_phase", "truncated_audio", "damaged_audio", "decoder_crashed", "long_without_times", "not_aligned",
        "times_outside_audio",
        "too_short", "too_long", "silent", "mostly_silence", "clipped", "narrow_band", "noisy", "low_quality",
        "empty_text", "not_in_language", "too_fast", "too_slow", "repeated_text",
        "duplicate_id", "duplicate_audio", "leak", "held_out",
    ]
    | TextReason
    | LookalikeReason
)  # fmt: skip
SILENCE_DB = -60.0  # dBFS of the loudest sample; below it the clip is silent


class Filters(Config):
    """Conditions that an utterance must meet to be kept."""

    min_seconds: Seconds = Field(0.5, ge=0)
    """Shortest length of an utterance."""
    max_seconds: Seconds = Field(30.0, gt=0)
    """Greatest length of an utterance."""
    min_characters_per_second: Annotated[float, Unit("characters/s")] = Field(1.0, ge=0)
    """Slowest speech, for every source."""
    max_characters_per_second: Annotated[float, Unit("characters/s")] = Field(30.0, gt=0)
    """Fastest speech, for every source."""
    rate_deviations: Annotated[float, Unit("standard deviations")] = Field(6.0, ge=0)
    """How far the speed of an utterance may be from the median of its source. It is measured on the logarithm of the
    characters per second, in robust standard deviations (from the median absolute deviation). 0: no such limit."""
    min_script_share: Annotated[float, Unit("share")] = Field(0.5, ge=0, le=1)
    """Smallest share of the letters that are in the script of the language."""
    max_silence: Annotated[float, Unit("share")] = Field(0.95, ge=0, le=1)
    """Largest share of the clip (in frames of 32 ms) that is silent."""
    max_clipping: Annotated[float, Unit("share")] = Field(0.1, ge=0, le=1)
    """Largest share of the samples that are clipped: cut off because they were too loud."""
    min_bandwidth_hz: Annotated[float, Unit("Hz")] = Field(0.0, ge=0)
    """Lowest upper end of the frequencies of the clip. A telephone has about 3,400 to 4,000 Hz."""
    min_snr_db: Annotated[float, Unit("dB")] = Field(0.0, ge=0)
    """Lowest signal-to-noise ratio: how much louder the loud parts are than the quiet parts."""
    min_quality: Annotated[float | None, Unit("score of the source")] = None
    """Lowest quality score that the source itself gives. Utterances without a score are kept."""
    max_repeats: Annotated[int, Unit("utterances")] = Field(50, ge=1)
    """Most utterances with the same or nearly the same text of four words or more."""


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
