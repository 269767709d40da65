"""Batches are planned, not sampled: the micro-batches of a whole epoch follow from (seed, epoch, ranks).

A step is the next effective batch of the epoch's order: a number of utterances, or of seconds. Its utterances are
dealt to the ranks longest first, back and forth, so that ranks get about equal seconds; a rank's share is cut into
micro-batches that fit the budget. The content of a step does not depend on ranks or budget. Resuming needs only the
index of the step.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from caspi.training.config import Budget, EffectiveBatch
from caspi.training.data.epoch_lengths import EpochLengths


@dataclass(frozen=True, slots=True)
class EpochPlan:
    """steps[step][rank] is a list of micro-batches, each an array of corpus rows. lengths: of every row.

    imbalance: share of rank time spent waiting for the rank with the most seconds, averaged over steps. filled: share
    of the budget's seconds that a micro-batch uses, averaged. dropped: utterances left over after the last full step.
    """

    steps: list[list[list[np.ndarray]]]
    lengths: EpochLengths
    imbalance: float
    filled: float
    dropped: int

    def rows(self, step: int) -> np.ndarray:
        """All rows of a step, over ranks and micro-batches."""
        return np.concatenate([micro for rank in self.steps[step] for micro in rank])


def shuffled(rows: np.ndarray, seed: int, epoch: int, easy: np.ndarray | None = None, bands: int = 10) -> np.ndarray:
    """Rows in the order of an epoch. easy: the difficulty of each of `rows`; low ones come first, in `bands` of rising
    difficulty. Within a band the order is random, so that a batch is not all of one kind."""
    draw = np.random.default_rng((seed, epoch)).permutation(len(rows))
    if easy is None:
        return rows[draw]
    edges = np.quantile(easy, np.linspace(0, 1, bands + 1)[1:-1])
    band = np.searchsorted(edges, easy[draw], side="right")
    return rows[draw[np.argsort(band, kind="stable")]]


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
    waiting, filled, used = [], [], 0
    for rows in _steps(order, seconds, batch):
        used += len(rows)
        rows = rows[np.argsort(-seconds_each[rows], kind="stable")]  # noqa: PLW2901
        dealt = _deal(len(rows), ranks)
        shares = [rows[dealt == rank] for rank in range(ranks)] if ranks > 1 else [rows]
        steps.append([cut(share, seconds_each, tokens, budget) for share in shares])
        loads = [float(seconds_each[share].sum()) for share in shares]
        waiting.append(1 - sum(loads) / (ranks * max(loads)))
        filled.append(sum(loads) / (budget.seconds * sum(map(len, steps[-1]))))
    return EpochPlan(steps, lengths, float(np.mean(waiting)), float(np.mean(filled)), len(order) - used)


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


def _deal(size: int, ranks: int) -> np.ndarray:
    """Rank of each of `size` utterances, sorted by length: 0 1 2 2 1 0 0 1 2 ..."""
    lap = np.concatenate([np.arange(ranks), np.arange(ranks)[::-1]])
    return np.resize(lap, size)


def cut(rows: np.ndarray, seconds: np.ndarray, tokens: np.ndarray, budget: Budget) -> list[np.ndarray]:
    """Cuts consecutive rows into the fewest micro-batches within the budget; an utterance above it gets its own.

    They are about equal if that fits: a small last one takes nearly as long to launch, and blocks are recompiled, for
    many seconds, the first time a micro-batch has only one or a few utterances.
    """
    if len(rows) == 0:
        return []
    filled = _filled(seconds[rows].tolist(), tokens[rows].tolist(), budget)
    if not filled:
        return [rows]
    held = seconds[rows]
    middles = np.cumsum(held) - held / 2
    equal = np.searchsorted(middles, held.sum() / (len(filled) + 1) * np.arange(1, len(filled) + 1)).tolist()
    parts = np.split(rows, equal)
    if all(len(part) and _fits(part, seconds, tokens, budget) for part in parts):
        return parts
    return np.split(rows, filled)


def _fits(rows: np.ndarray, seconds: np.ndarray, tokens: np.ndarray, budget: Budget) -> bool:
    return len(rows) == 1 or bool(seconds[rows].sum() <= budget.seconds and tokens[rows].sum() <= budget.tokens)


def _filled(seconds: list[float], tokens: list[float], budget: Budget) -> list[int]:
    """The places to cut if every micro-batch is filled before the next one begins."""
    cuts = []
    held_seconds = held_tokens = 0.0
    for index, (length, count) in enumerate(zip(seconds, tokens, strict=True)):
        held_seconds += length
        held_tokens += count
        if index and (held_seconds > budget.seconds or held_tokens > budget.tokens):
            cuts.append(index)
            held_seconds, held_tokens = length, count
    return cuts
