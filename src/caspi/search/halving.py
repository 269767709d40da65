"""Which runs are ended early: successive halving (Li et al. 2020, arXiv:1810.05934) that respects the noise of a WER.

At a third and a ninth of a run, only a run in the best third goes on, and any run whose errors are not shown to be more
than those of the best one there: all runs transcribe the same utterances, so that errors are compared pairwise
(Wilcoxon 1945, doi:10.2307/3001968).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import wilcoxon

from caspi.scoring.intervals import Interval, rate_interval

REDUCTION = 3
RUNGS = (1 / 9, 1 / 3)  # shares of a run
P_WORSE = 0.05


@dataclass(frozen=True, slots=True)
class Reached:
    """A run at a rung. errors, words, groups: of every utterance of an evaluation. loss: on the same utterances."""

    errors: tuple[int, ...]
    words: tuple[int, ...]
    groups: tuple[int, ...]
    loss: float

    @property
    def wer(self) -> float:
        return sum(self.errors) / max(1, sum(self.words))

    @property
    def interval(self) -> Interval | None:
        """Of the WER, 95 %, over groups; None for a single one."""
        return rate_interval(np.array(self.errors), np.array(self.words), self.groups)

    @property
    def quality(self) -> tuple[float, float]:
        """Lower is better."""
        return self.wer, self.loss


def passed(before: float, now: float) -> list[int]:
    """The rungs that lie in (before, now], by number. before, now: shares of a run."""
    return [number for number, rung in enumerate(RUNGS) if before < rung <= now]


def is_worse(one: Reached, than: Reached) -> float:
    """The probability of a difference at least as large if the two were equal (one-sided)."""
    if len(one.errors) != len(than.errors):
        return 1.0
    differences = np.array(one.errors) - np.array(than.errors)
    if not differences.any():
        return 1.0
    return float(wilcoxon(differences, alternative="greater", zero_method="zsplit").pvalue)


def pruned(mine: Reached, others: Mapping[int, Reached]) -> str | None:
    """The reason to end a run at a rung; None if it goes on. others: runs that were at the rung before, by number."""
    if len(others) < REDUCTION - 1:
        return None
    ranked: Sequence[int] = sorted(others, key=lambda number: others[number].quality)
    better = sum(others[number].quality < mine.quality for number in ranked)
    if better < max(1, (len(others) + 1) // REDUCTION):
        return None
    best = ranked[0]
    if (p := is_worse(mine, others[best])) >= P_WORSE:
        return None
    return f"worse than run {best} there: WER {100 * mine.wer:.1f} %, {100 * others[best].wer:.1f} %, p = {p:.2g}"
