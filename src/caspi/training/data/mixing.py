"""Mixes: how much of every source an epoch of training contains.

Each source is an endless sequence of shuffled passes over it, and an epoch takes the next part of this sequence.
Therefore all utterances of a source are used equally often over the epochs, for any share.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from caspi.errors import UsageError
from caspi.randomness import seeded
from caspi.training.config import Mix


class Mixer:
    """A mix over the rows of a corpus.

    rows: those that may be used; seconds, sources: of every row of the corpus. Raises UsageError if a source of the mix
    has no row.
    """

    def __init__(self, mix: Mix, rows: np.ndarray, seconds: np.ndarray, sources: Sequence[str], seed: int) -> None:
        self._mix, self._seed = mix, seed
        names = np.asarray(sources, dtype=object)[rows]
        self._rows = {name: rows[names == name] for name in mix.sources}
        if missing := sorted(name for name, rows_of_source in self._rows.items() if not len(rows_of_source)):
            known = ", ".join(sorted(set(names.tolist()))) or "none"
            raise UsageError(f"train.mixes: the corpus has no utterances of {', '.join(missing)}; it has {known}")
        self._seconds = seconds
        for name, share in mix.shares().items():
            if share.max_hours is not None:
                self._rows[name] = self._limit_hours(name, share.max_hours * 3600)
        self.quotas = quotas(
            mix, {name: float(self._amounts(rows_of_source).sum()) for name, rows_of_source in self._rows.items()}
        )

    def _amounts(self, rows: np.ndarray) -> np.ndarray:
        """The amount of each row: its hours, or 1."""
        return self._seconds[rows] / 3600 if self._mix.by == "hours" else np.ones(len(rows))

    def _limit_hours(self, name: str, limit: float) -> np.ndarray:
        order = self._shuffled(name, self._rows[name], -1)
        within_limit = order[np.cumsum(self._seconds[order]) <= limit]
        return np.sort(within_limit if len(within_limit) else order[:1])

    def _shuffled(self, name: str, rows: np.ndarray, pass_number: int) -> np.ndarray:
        seed = [self._seed, pass_number + 1, *name.encode()]
        return rows[seeded(*seed).permutation(len(rows))]

    def epoch(self, number: int) -> np.ndarray:
        """Corpus rows of an epoch; a row occurs once for every pass over its source."""
        return np.concatenate([self._rows_of_epoch(name, number) for name in self._rows])

    def _rows_of_epoch(self, name: str, number: int) -> np.ndarray:
        rows, quota = self._rows[name], self.quotas[name]
        total = float(self._amounts(rows).sum())
        first, last = quota * number, quota * (number + 1)
        parts = []
        for pass_number in range(int(first // total), int(-(-last // total))):
            order = self._shuffled(name, rows, pass_number)
            amounts = self._amounts(order)
            # An utterance belongs to the epoch that contains its middle, so that none is counted twice.
            middles = np.cumsum(amounts) - amounts / 2 + pass_number * total
            parts.append(order[(middles >= first) & (middles < last)])
        return np.concatenate(parts) if parts else rows[:0]


def quotas(mix: Mix, available: Mapping[str, float]) -> dict[str, float]:
    """How much of every source one epoch contains, in hours or utterances, given the available amount of each."""
    shares = mix.shares()
    if all(share.epochs is not None for share in shares.values()):
        return {name: available[name] * (share.epochs or 0.0) for name, share in shares.items()}
    weights = {
        name: (available[name] if share.weight is None else share.weight) ** (1 / mix.temperature)
        for name, share in shares.items()
    }
    remaining = sum(available.values())
    if mix.size is not None:
        remaining = mix.size
    limits = {name: available[name] * (share.max_epochs or float("inf")) for name, share in shares.items()}
    result: dict[str, float] = {}
    while weights:
        total = sum(weights.values())
        over_limit = [name for name, weight in weights.items() if remaining * weight / total > limits[name]]
        if not over_limit:
            return result | {name: remaining * weight / total for name, weight in weights.items()}
        for name in over_limit:
            result[name] = limits[name]
            del weights[name]
        remaining -= sum(limits[name] for name in over_limit)
    return result
