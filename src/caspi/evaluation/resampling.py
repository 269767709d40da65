"""Could it be luck? Bootstrap intervals and a permutation test over what fails together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike

RESAMPLES = 10_000
_AT_ONCE = 500
_AT_LEAST = 8
_AT_MOST = 1_000


def units(values: np.ndarray, groups: Sequence[str]) -> np.ndarray:
    """Sums [units, columns] of per-utterance values [utterances, columns], over what the bootstrap draws.

    Utterances of one recording fail together, so groups are the honest unit; fewer than 8 of them make no reliable
    interval, and utterances are drawn instead. More than 1,000 units are joined at random into so many: a sum's
    variance stays what it was, and 10,000 resamples of any corpus take a second.
    """
    index = {group: position for position, group in enumerate(dict.fromkeys(groups))}
    sums = values
    if len(index) >= _AT_LEAST:
        sums = np.zeros((len(index), values.shape[1]))
        np.add.at(sums, [index[group] for group in groups], values)
    if len(sums) > _AT_MOST:
        dealt = np.random.default_rng(len(sums)).permutation(len(sums)) % _AT_MOST
        joined = np.zeros((_AT_MOST, values.shape[1]))
        np.add.at(joined, dealt, sums)
        return joined
    return sums


def resample(sums: np.ndarray, seed: int) -> np.ndarray:
    """Totals [RESAMPLES, columns] of as many units, drawn with replacement (Bisani and Ney 2004, ICASSP)."""
    return np.concatenate(list(_drawn(sums, np.random.default_rng(seed))))


def _drawn(sums: np.ndarray, draw: np.random.Generator) -> Iterator[np.ndarray]:
    size = len(sums)
    offsets = np.arange(_AT_ONCE)[:, None] * size
    for _ in range(RESAMPLES // _AT_ONCE):
        places = draw.integers(0, size, (_AT_ONCE, size), dtype=np.int32) + offsets
        counts = np.bincount(places.ravel(), minlength=_AT_ONCE * size).reshape(_AT_ONCE, size)
        yield counts @ sums


def rate_interval(errors: ArrayLike, lengths: ArrayLike, groups: Sequence[str], seed: int = 0) -> tuple[float, float]:
    """95 % percentile interval of errors over lengths."""
    drawn = resample(units(np.stack([np.asarray(errors, float), np.asarray(lengths, float)], axis=1), groups), seed)
    low, high = np.percentile(drawn[:, 0] / np.maximum(1, drawn[:, 1]), [2.5, 97.5])
    return float(low), float(high)


def permutation_p(differences: np.ndarray, seed: int) -> float:
    """Two-sided: how often random signs give a sum as far from 0; never exactly 0 (Phipson and Smyth 2010)."""
    draw = np.random.default_rng(seed)
    observed = abs(differences.sum())
    extreme = 0
    for _ in range(RESAMPLES // _AT_ONCE):
        signs = 2.0 * draw.integers(0, 2, (_AT_ONCE, len(differences)), dtype=np.int8) - 1.0
        extreme += int((np.abs(signs @ differences) >= observed - 1e-9).sum())
    return (extreme + 1) / (RESAMPLES + 1)
