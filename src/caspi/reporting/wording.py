"""Numbers and counts as people read them, the same on all pages and in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

SYNTHETIC_NOTE = (
    "Synthetic speech: these figures are of espeak-ng voices reading generated sentences. "
    "They show that the path works, not how well anybody's speech is recognised."
)


def _hours(value: float) -> str:
    return f"{value:.2f} h" if value >= 0.1 else f"{value * 60:.1f} min"


FEW = 5  # groups: intervals of fewer are rough


def rate(value: float, interval: Sequence[float] | None = None) -> str:
    """`0.083 [0.061, 0.105]`."""
    return f"{value:.3f}" + (f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else "")


def counted(summary: dict[str, Any]) -> str:
    """`200 of 1,204 utterances in 8 groups`: how much an evaluation's figure rests on."""
    whole = sum(part["of"] for part in summary.get("evaluated", ()))
    utterances, groups = summary["utterances"], summary["independent"]
    said = f"{utterances:,} of {whole:,} utterances" if whole > utterances else plural(utterances, "utterance")
    if groups == utterances:
        return said
    return f"{said} in {plural(groups, 'group')}{', so its interval is rough' if 1 < groups < FEW else ''}"


def plural(number: int, what: str) -> str:
    """`1 utterance`, `1,204 utterances`."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"
