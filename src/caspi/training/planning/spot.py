"""What a run costs on spot machines, which are cheaper and are taken away at times."""

from __future__ import annotations

from dataclasses import dataclass

from caspi.audio import Seconds
from caspi.training.planning.estimates import Gpu

_RESTART = 600.0  # seconds until another machine has started, has the corpus and the checkpoint, and trains again


@dataclass(frozen=True, slots=True)
class SpotCosts:
    """hours: with what is lost to interruptions; cost: in dollars; interruptions: the expected number."""

    hours: float
    cost: float
    interruptions: float


def spot_costs(gpu: Gpu, ranks: int, seconds: Seconds, between_checkpoints: Seconds) -> SpotCosts | None:
    """An interruption costs the restart and, because it can come without notice, half of the time between two
    checkpoints. None if the table has no spot price. seconds: without interruptions."""
    if gpu.spot is None:
        return None
    lost = _RESTART + min(between_checkpoints, seconds) / 2
    share = gpu.interruptions * lost / 3600  # of an hour, by an hour on a machine
    if share >= 1:
        return None
    hours = seconds / 3600 / (1 - share)
    return SpotCosts(hours, hours * gpu.spot * ranks, hours * gpu.interruptions)
