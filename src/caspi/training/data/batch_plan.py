"""Batches are planned, not sampled: the micro-batches of a whole epoch follow from (seed, epoch, ranks).

A step is the next effective batch of the epoch's order: a number of utterances, or of seconds. Its utterances are
assigned to the ranks in order of length, 0 1 2 2 1 0, so that ranks get about equal seconds; a rank's share is cut into
micro-batches that fit the budget. The content of a step does not depend on ranks or budget. Resuming needs only the
index of the step.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from caspi.randomness import seeded
from caspi.training.config import Budget, EffectiveBatch
from caspi.training.data.epoch_lengths import EpochLengths


@dataclass(frozen=True, slots=True)
class EpochPlan:
    """steps[step][rank] is a list of micro-batches, each an array of corpus rows. lengths: of every row.

    imbalance: share of time in which ranks wait for the rank with the most seconds, averaged over steps. filled:
    average share of the budget's seconds that a micro-batch uses. dropped: utterances left over after the last full
    step.
    """

    steps: list[list[list[np.ndarray]]]
    lengths: EpochLengths
    imbalance: float
    filled: float
    dropped: int

    def rows(self, step: int) -> np.ndarray:
        """All rows of a step, over ranks and micro-batches."""
        return np.concatenate([rows for rank in self.steps[step] for rows in rank])


def shuffled(
    rows: np.ndarray, seed: int, epoch: int, difficulty: np.ndarray | None = None, bands: int = 10
) -> np.ndarray:
    """Rows in the order of an epoch. difficulty: of each of `rows`; low values come first, in
    `bands` of rising difficulty. Within a band the order is random, so that the utterances of a batch differ."""
    permutation = seeded(seed, epoch).permutation(len(rows))
    if difficulty is None:
        return rows[permutation]
    edges = np.quantile(difficulty, np.linspace(0, 1, bands + 1)[1:-1])
    band = np.searchsorted(edges, difficulty[permutation], side="right")
    return rows[permutation[np.argsort(band, kind="stable")]]


def plan_epoch(
    seconds: np.ndarray, order: np.ndarray, *, batch: EffectiveBatch, budget: Budget, ranks: int,
    lengths: EpochLengths | None = None, sequences: int = 1,
) -> EpochPlan:  # fmt: skip
    """Plans one epoch over corpus rows in `order`. seconds: of every row in the corpus, before augmentation; effective
    batches are counted by them. lengths: after augmentation; budget and balance use them. sequences: sequences of the
    decoder per clip.

    The epoch does not use the utterances left over after the last full effective batch. If all rows are fewer than one
    effective batch, the epoch is one step with all of them.
    """
    lengths = EpochLengths.of(seconds) if lengths is None else lengths
    seconds_each, tokens = lengths.seconds, lengths.sequence_tokens * sequences
    steps: list[list[list[np.ndarray]]] = []
    imbalances, filled, used = [], [], 0
    for rows in _steps(order, seconds, batch):
        used += len(rows)
        rows = rows[np.argsort(-seconds_each[rows], kind="stable")]  # noqa: PLW2901
        rank_of_row = _assign_ranks(len(rows), ranks)
        shares = [rows[rank_of_row == rank] for rank in range(ranks)] if ranks > 1 else [rows]
        steps.append([cut(share, seconds_each, tokens, budget) for share in shares])
        loads = [float(seconds_each[share].sum()) for share in shares]
        imbalances.append(1 - sum(loads) / (ranks * max(loads)))
        filled.append(sum(loads) / (budget.seconds * sum(map(len, steps[-1]))))
    return EpochPlan(steps, lengths, float(np.mean(imbalances)), float(np.mean(filled)), len(order) - used)


def _steps(order: np.ndarray, seconds: np.ndarray, batch: EffectiveBatch) -> Iterator[np.ndarray]:
    """Consecutive rows of every full effective batch; all rows if they do not fill one."""
    if batch.seconds is None:
        size = batch.utterances or 1
        ends = np.arange(size, len(order) + 1, size)
    else:
        # A step ends with the last utterance that still fits in its seconds.
        step = np.ceil(np.cumsum(seconds[order]) / batch.seconds - 1e-9).astype(np.int64)
        ends = np.flatnonzero(np.diff(step)) + 1
    if not len(ends):
        yield order
        return
    yield from np.split(order, ends)[:-1]


def _assign_ranks(size: int, ranks: int) -> np.ndarray:
    """Rank of each of `size` utterances, sorted by length: 0 1 2 2 1 0 0 1 2 ..."""
    back_and_forth = np.concatenate([np.arange(ranks), np.arange(ranks)[::-1]])
    return np.resize(back_and_forth, size)


def cut(rows: np.ndarray, seconds: np.ndarray, tokens: np.ndarray, budget: Budget) -> list[np.ndarray]:
    """Cuts consecutive rows into the fewest micro-batches within the budget; an utterance above it gets its own.

    Their sizes are about equal if that fits: launching a small one takes nearly as long, and a micro-batch of only a
    few utterances makes torch compile the blocks again, which takes many seconds.
    """
    if len(rows) == 0:
        return []
    greedy_cuts = _greedy_cuts(seconds[rows].tolist(), tokens[rows].tolist(), budget)
    if not greedy_cuts:
        return [rows]
    row_seconds = seconds[rows]
    middles = np.cumsum(row_seconds) - row_seconds / 2
    equal_cuts = np.searchsorted(
        middles, row_seconds.sum() / (len(greedy_cuts) + 1) * np.arange(1, len(greedy_cuts) + 1)
    ).tolist()
    parts = np.split(rows, equal_cuts)
    if all(len(part) and _fits(part, seconds, tokens, budget) for part in parts):
        return parts
    return np.split(rows, greedy_cuts)


def _fits(rows: np.ndarray, seconds: np.ndarray, tokens: np.ndarray, budget: Budget) -> bool:
    return len(rows) == 1 or bool(seconds[rows].sum() <= budget.seconds and tokens[rows].sum() <= budget.tokens)


def _greedy_cuts(seconds: list[float], tokens: list[float], budget: Budget) -> list[int]:
    """Indices of the cuts if every micro-batch is filled before the next one begins."""
    cuts = []
    sum_seconds = sum_tokens = 0.0
    for index, (length, count) in enumerate(zip(seconds, tokens, strict=True)):
        sum_seconds += length
        sum_tokens += count
        if index and (sum_seconds > budget.seconds or sum_tokens > budget.tokens):
            cuts.append(index)
            sum_seconds, sum_tokens = length, count
    return cuts
