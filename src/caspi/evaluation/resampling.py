"""Could it be luck? Intervals and a permutation test over what fails together."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike

Interval = tuple[float, float]

RESAMPLES = 10_000
_AT_ONCE = 500
FEW = 8  # units: fewer make no bootstrap
_AT_MOST = 1_000
_NORMAL = 1.959964
_STUDENT = (math.nan, 12.706, 4.303, 3.182, 2.776, 2.571, 2.447)  # two-sided 95 %, by degrees of freedom


def units(values: np.ndarray, groups: Sequence[str]) -> np.ndarray:
    """Sums [units, columns] of per-utterance values [utterances, columns], a unit a group.

    Utterances of one recording or speaker fail together, so groups are the honest unit. More than 1,000 of them are
    joined at random into so many: a sum's variance stays what it was, and 10,000 resamples of any corpus take a second.
    """
    index = {group: position for position, group in enumerate(dict.fromkeys(groups))}
    places = np.array([index[group] for group in groups])
    if len(index) > _AT_MOST:
        places = (np.random.default_rng(len(index)).permutation(len(index)) % _AT_MOST)[places]
    sums = np.zeros((min(len(index), _AT_MOST), values.shape[1]))
    np.add.at(sums, places, values)
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


def ratio_interval(sums: np.ndarray, seed: int = 0) -> Interval | None:
    """95 % interval of the first column's total over the second's; None of a single unit, which says nothing of others.

    From 8 units on by the bootstrap, with the percentiles widened for what it is too narrow by where units are few
    (expanded percentiles: Hesterberg 2015, The American Statistician 69:4); of fewer by Student's distribution over
    their residuals, which is as wide as so few must be.
    """
    count = len(sums)
    if count < 2:
        return None
    if count >= FEW:
        drawn = resample(sums, seed)
        share = 100 * _below(-math.sqrt(count / (count - 1)) * _student(count - 1))
        low, high = np.percentile(drawn[:, 0] / np.maximum(1, drawn[:, 1]), [share, 100 - share])
        return float(low), float(high)
    total = max(1.0, float(sums[:, 1].sum()))
    ratio = float(sums[:, 0].sum()) / total
    residuals = sums[:, 0] - ratio * sums[:, 1]
    half = _student(count - 1) * math.sqrt(count / (count - 1) * float((residuals**2).sum())) / total
    return ratio - half, ratio + half


def rate_interval(errors: ArrayLike, lengths: ArrayLike, groups: Sequence[str], seed: int = 0) -> Interval | None:
    """95 % interval of errors over lengths; None where all are of one group.

    Where nothing is wrong, what so many words allow (the exact binomial bound, words taken as independent): a width of
    nothing would be a claim.
    """
    sums = units(np.stack([np.asarray(errors, float), np.asarray(lengths, float)], axis=1), groups)
    if len(sums) >= 2 and not sums[:, 0].any():
        return 0.0, 1 - 0.025 ** (1 / max(1.0, float(sums[:, 1].sum())))
    found = ratio_interval(sums, seed)
    return None if found is None else (max(0.0, found[0]), found[1])


def permutation_p(differences: np.ndarray, seed: int) -> float:
    """Two-sided: how often random signs give a sum as far from 0; never exactly 0 (Phipson and Smyth 2010)."""
    draw = np.random.default_rng(seed)
    observed = abs(differences.sum())
    extreme = 0
    for _ in range(RESAMPLES // _AT_ONCE):
        signs = 2.0 * draw.integers(0, 2, (_AT_ONCE, len(differences)), dtype=np.int8) - 1.0
        extreme += int((np.abs(signs @ differences) >= observed - 1e-9).sum())
    return (extreme + 1) / (RESAMPLES + 1)


def _student(freedom: int) -> float:
    """Student's two-sided 95 % quantile; from 7 degrees of freedom on by its expansion (Abramowitz and Stegun 26.7.5),
    to three digits."""
    if freedom < len(_STUDENT):
        return _STUDENT[freedom]
    z = _NORMAL
    return (
        z
        + (z**3 + z) / (4 * freedom)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * freedom**3)
    )


def _below(deviation: float) -> float:
    """The normal distribution's share below a deviation."""
    return math.erfc(-deviation / math.sqrt(2)) / 2
