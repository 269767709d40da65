"""Formats of numbers and counts, the same on all pages and in the terminal."""

from __future__ import annotations

from collections.abc import Sequence

SYNTHETIC_NOTE = (
    "Synthetic speech: these figures are of espeak-ng voices reading generated sentences. "
    "They show that the pipeline works; they do not measure recognition of real speech."
)


def hours_or_minutes(value: float) -> str:
    return f"{value:.2f} h" if value >= 0.1 else f"{value * 60:.1f} min"


FEW = 5  # with fewer groups than this, intervals are rough


def percent(value: float) -> str:
    """A fraction as percent: `8.3 %`, `0.25 %`. Files contain fractions."""
    return f"{_points(value)} %"


def _points(value: float) -> str:
    """Percentage points, with two decimals below one."""
    return f"{100 * value:.2f}" if 0 < abs(value) < 0.00995 else f"{100 * value:.1f}"


def rate(value: float, interval: Sequence[float] | None = None) -> str:
    """`8.3 % [6.1, 10.5]`."""
    return percent(value) + (f" [{_points(interval[0])}, {_points(interval[1])}]" if interval else "")


def plural(number: int, what: str) -> str:
    """`1 utterance`, `1,204 utterances`."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"
