"""Batches are planned, not sampled: the micro-batches of a whole epoch follow from (seed, epoch, ranks).

A step is the next `effective_batch` utterances of the epoch's permutation. Its utterances are dealt to the ranks
longest first, back and forth, so that ranks carry equal seconds; a rank's share is cut into micro-batches of at
most `budget` seconds. Resuming is an index into the plan.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from caspi.audio import Seconds


@dataclass(frozen=True, slots=True)
class EpochPlan:
    """steps[step][rank] is a list of micro-batches, each an array of corpus rows.

    imbalance: share of rank time spent waiting for the rank with the most seconds, averaged over steps.
    """

    steps: list[list[list[np.ndarray]]]
    imbalance: float
    dropped: int

    def rows(self, step: int) -> np.ndarray:
        """All rows of a step, over ranks and micro-batches."""
        return np.concatenate([micro for rank in self.steps[step] for micro in rank])


def plan_epoch(
    seconds: np.ndarray,
    rows: np.ndarray | None = None,
    *,
    effective_batch: int,
    budget: Seconds,
    ranks: int,
    seed: int,
    epoch: int,
) -> EpochPlan:
    """Plans one epoch over `rows` of a corpus whose utterances have the given seconds; by default over all of it.

    The utterances left over after the last full effective batch wait for another epoch's permutation; with fewer
    utterances than one effective batch, the epoch is one step of all of them.
    """
    rows = np.arange(len(seconds)) if rows is None else rows
    order = rows[np.random.default_rng((seed, epoch)).permutation(len(rows))]
    count = max(1, len(order) // effective_batch)
    size = min(effective_batch, len(order))
    table = order[: count * size].reshape(count, size)
    longest_first = np.argsort(-seconds[table], axis=1, kind="stable")
    table = np.take_along_axis(table, longest_first, axis=1)
    rank_of = _deal(size, ranks)
    steps, waiting = [], []
    for row in table:
        shares = [row[rank_of == rank] for rank in range(ranks)]
        steps.append([_cut(share, seconds, budget) for share in shares])
        if ranks > 1:
            loads = [float(seconds[share].sum()) for share in shares]
            waiting.append(1 - sum(loads) / (ranks * max(loads)))
    return EpochPlan(steps, float(np.mean(waiting)) if waiting else 0.0, len(order) - table.size)


def _deal(size: int, ranks: int) -> np.ndarray:
    """Rank of each of `size` utterances, sorted by length: 0 1 2 2 1 0 0 1 2 ..."""
    lap = np.concatenate([np.arange(ranks), np.arange(ranks)[::-1]])
    return np.resize(lap, size)


def _cut(rows: np.ndarray, seconds: np.ndarray, budget: Seconds) -> list[np.ndarray]:
    """Micro-batches of at most `budget` seconds; an utterance longer than that stands alone."""
    if len(rows) == 0:
        return []
    total = np.cumsum(seconds[rows])
    cuts, carried = [], 0.0
    for index in range(1, len(rows)):
        if total[index] - carried > budget:
            cuts.append(index)
            carried = total[index - 1]
    return np.split(rows, cuts)
