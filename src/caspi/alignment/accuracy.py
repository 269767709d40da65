"""How far aligned times are from known ones, with intervals over recordings or speakers."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from caspi.audio import Seconds
from caspi.scoring.intervals import Interval, mean_interval

NEAR: tuple[Seconds, ...] = (0.02, 0.04, 0.08, 0.2)


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Distances of times from the true ones: their mean with a 95 % interval, median and mean signed (late is
    positive), in seconds; the share within each of NEAR."""

    times: int
    mean: Seconds
    mean_ci: Interval | None
    median: Seconds
    bias: Seconds
    within: dict[str, float]


def accuracy(found: Sequence[Seconds], true: Sequence[Seconds], groups: Sequence[Hashable]) -> Accuracy:
    """Of at least one time. groups: recording or speaker of each."""
    late = np.asarray(found) - np.asarray(true)
    distances = np.abs(late)
    return Accuracy(
        times=len(late),
        mean=float(distances.mean()),
        mean_ci=mean_interval(distances.tolist(), groups),
        median=float(np.median(distances)),
        bias=float(late.mean()),
        within={f"{1000 * near:.0f} ms": float((distances <= near).mean()) for near in NEAR},
    )


def evenly_spaced(count: int, seconds: Seconds) -> tuple[list[Seconds], list[Seconds]]:
    """Starts and ends of words without listening: what any aligner must beat."""
    edges = np.linspace(0.0, seconds, count + 1)
    return edges[:-1].tolist(), edges[1:].tolist()
