"""Mixes: how much of every source an epoch of training holds.

An epoch takes from each source the next stretch of an endless row of shuffled passes over it, so that over the epochs
every utterance is used equally often, whatever the share.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from caspi.config import Config
from caspi.errors import UsageError


class Share(Config):
    """weight: of the epoch. epochs: instead, passes over the source in one epoch of the mix.

    max_hours: only so much of the source is ever used. max_epochs: passes at most; what is cut goes to the others.
    """

    weight: float | None = Field(None, gt=0)
    epochs: float | None = Field(None, gt=0)
    max_hours: float | None = Field(None, gt=0)
    max_epochs: float | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _one_way(self) -> Share:
        if self.weight is not None and self.epochs is not None:
            raise ValueError("weight and epochs are both given: keep one")
        return self


class Mix(Config):
    """sources: by the name utterances carry; a number is a weight, and a source without one weighs its size.

    by: what weights are shares of. temperature: weights to the power of 1/temperature, 1 leaves them, larger evens
    them out. size: of one epoch, in hours or utterances; by default all that the sources hold.
    """

    sources: dict[str, float | Share] = Field(min_length=1)
    by: Literal["hours", "utterances"] = "hours"
    temperature: float = Field(1.0, gt=0)
    size: float | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _weights_or_epochs(self) -> Mix:
        given = [share.epochs is not None for share in self.shares().values()]
        if any(given) and not all(given):
            raise ValueError("some sources have epochs and some weights: give epochs to all or to none")
        if any(given) and (self.size is not None or self.temperature != 1.0):
            raise ValueError("size and temperature mean nothing where sources have epochs")
        weighted = [share.weight is not None for share in self.shares().values()]
        if any(weighted) and not all(weighted):
            raise ValueError("some sources have weights and some none: give weights to all, or to none")
        if any(isinstance(share, float | int) and share <= 0 for share in self.sources.values()):
            raise ValueError("a weight must be above 0: leave the source out instead")
        return self

    def shares(self) -> dict[str, Share]:
        """Every source's share, bare weights spelled out."""
        return {name: Share(weight=s) if isinstance(s, float | int) else s for name, s in self.sources.items()}


class Mixer:
    """A mix over the rows of a corpus.

    rows: those that may be used; seconds, sources: of every row of the corpus. Raises UsageError where a source that
    the mix names has no row.
    """

    def __init__(self, mix: Mix, rows: np.ndarray, seconds: np.ndarray, sources: Sequence[str], seed: int) -> None:
        self._mix, self._seed = mix, seed
        names = np.asarray(sources, dtype=object)[rows]
        self._rows = {name: rows[names == name] for name in mix.sources}
        if missing := sorted(name for name, found in self._rows.items() if not len(found)):
            known = ", ".join(sorted(set(names.tolist()))) or "none"
            raise UsageError(f"train.mixes: the corpus has no utterances of {', '.join(missing)}; it has {known}")
        self._seconds = seconds
        for name, share in mix.shares().items():
            if share.max_hours is not None:
                self._rows[name] = self._capped(name, share.max_hours * 3600)
        self.quotas = quotas(mix, {name: float(self._amounts(found).sum()) for name, found in self._rows.items()})

    def _amounts(self, rows: np.ndarray) -> np.ndarray:
        """What rows count for: hours, or one each."""
        return self._seconds[rows] / 3600 if self._mix.by == "hours" else np.ones(len(rows))

    def _capped(self, name: str, limit: float) -> np.ndarray:
        order = self._shuffled(name, self._rows[name], -1)
        kept = order[np.cumsum(self._seconds[order]) <= limit]
        return np.sort(kept if len(kept) else order[:1])

    def _shuffled(self, name: str, rows: np.ndarray, lap: int) -> np.ndarray:
        seed = [self._seed, lap + 1, *name.encode()]
        return rows[np.random.default_rng(seed).permutation(len(rows))]

    def epoch(self, number: int) -> np.ndarray:
        """Corpus rows of an epoch; a row stands there as often as its source is passed over."""
        return np.concatenate([self._stretch(name, number) for name in self._rows])

    def _stretch(self, name: str, number: int) -> np.ndarray:
        rows, quota = self._rows[name], self.quotas[name]
        total = float(self._amounts(rows).sum())
        first, last = quota * number, quota * (number + 1)
        found = []
        for lap in range(int(first // total), int(-(-last // total))):
            order = self._shuffled(name, rows, lap)
            amounts = self._amounts(order)
            # An utterance belongs to the epoch in which its middle falls, so that none is counted twice.
            middles = np.cumsum(amounts) - amounts / 2 + lap * total
            found.append(order[(middles >= first) & (middles < last)])
        return np.concatenate(found) if found else rows[:0]


def quotas(mix: Mix, available: Mapping[str, float]) -> dict[str, float]:
    """How much of every source one epoch holds, in hours or utterances, given how much there is of each."""
    shares = mix.shares()
    if all(share.epochs is not None for share in shares.values()):
        return {name: available[name] * (share.epochs or 0.0) for name, share in shares.items()}
    weights = {
        name: (available[name] if share.weight is None else share.weight) ** (1 / mix.temperature)
        for name, share in shares.items()
    }
    left = sum(available.values())
    if mix.size is not None:
        left = mix.size
    limits = {name: available[name] * (share.max_epochs or float("inf")) for name, share in shares.items()}
    found: dict[str, float] = {}
    while weights:
        total = sum(weights.values())
        over = [name for name, weight in weights.items() if left * weight / total > limits[name]]
        if not over:
            return found | {name: left * weight / total for name, weight in weights.items()}
        for name in over:
            found[name] = limits[name]
            del weights[name]
        left -= sum(limits[name] for name in over)
    return found
