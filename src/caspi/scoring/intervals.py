"""Confidence intervals of error rates and paired tests, over groups of utterances with correlated errors.

Both use the delete-one-group jackknife and Student's distribution with one degree of freedom fewer than groups.
An earlier version used a bootstrap of groups: it covered only 78 to 85 % when speakers have unequal amounts of speech,
or few errors (docs/log.md, 2026-11-30).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

Interval = tuple[float, float]
_LEVEL = 0.05
_NORMAL = float(special.ndtri(1 - _LEVEL / 2))
_TOGETHER = 2.0  # errors that occur together in one utterance, at low rates
_FEW_ERRORS = 10  # with so few errors, one group may have most of them by chance


class Paired(NamedTuple):
    """interval: 95 %, None for a single group; p: two-sided, of the same test, below 0.05 exactly if the interval
    excludes 0."""

    interval: Interval | None
    p: float


def by_group(values: Sequence[ArrayLike], groups: Sequence[Hashable]) -> np.ndarray:
    """Sums [groups, columns] of columns of per-utterance values."""
    index = {group: position for position, group in enumerate(dict.fromkeys(groups))}
    places = np.array([index[group] for group in groups], np.int64)
    return np.stack([np.bincount(places, np.asarray(column, float), len(index)) for column in values], axis=1)


def rate_interval(errors: ArrayLike, lengths: ArrayLike, groups: Sequence[Hashable]) -> Interval | None:
    """95 % interval of errors over lengths. None if all are in one group, or if one group has most of the errors and
    more errors than words (a loop): such data says nothing about other groups.

    Computed on the logit of the rate, so that it stays between 0 and 1 and is skewed like rates near either end. If
    groups have more errors than words, the rate has no upper bound, and its logarithm is used. The interval is never
    narrower than if errors came in independent pairs. Without errors, it is the exact binomial bound under the same
    assumption, because an interval of zero width would claim too much.
    """
    sums = by_group((errors, lengths), groups)
    count = len(sums)
    if count < 2:
        return None
    wrong, words = sums.sum(axis=0)
    if not wrong:
        return 0.0, float(1 - (_LEVEL / 2) ** (_TOGETHER / max(1.0, words)))
    most = sums[sums[:, 0].argmax()]
    if most[0] > wrong / 2 and most[0] > most[1] and wrong > _FEW_ERRORS:
        return None
    without = np.array([wrong, words]) - np.append(sums, [[0, 0]], axis=0)  # the last row leaves no group out
    rates = (without[:, 0] + 1) / (without[:, 1] + 2)
    bounded = bool((sums[:, 0] <= sums[:, 1]).all())
    scaled = special.logit(rates) if bounded else np.log(rates)
    spread = (count - 1) / count * float(np.square(scaled[:-1] - scaled[:-1].mean()).sum())
    independent = _TOGETHER / (wrong + 1) + (_TOGETHER / (words - wrong + 1) if bounded else 0)
    half = max(_student(count) * spread**0.5, _NORMAL * independent**0.5)
    ends = scaled[-1] - half, scaled[-1] + half
    low, high = special.expit(ends) if bounded else np.exp(ends)
    rate = wrong / max(1.0, words)
    return float(min(low, rate)), float(max(high, rate))


def paired(differences: ArrayLike, lengths: ArrayLike, groups: Sequence[Hashable]) -> Paired:
    """Interval and test of the sum of differences over the sum of lengths. differences: errors of one system minus
    errors of the other, one value per utterance.

    Takes the wider of two intervals, and the larger of their p-values: that of the jackknife over groups, and that of
    the errors that only one system makes, assumed independent (as in McNemar's test, with its correction for
    continuity). Without the second, three errors with the same pattern in two groups could look significant.
    """
    each = np.asarray(differences, float)
    sums = by_group((each, lengths), groups)
    count = len(sums)
    if count < 2:
        return Paired(None, 1.0)
    apart, words = sums.sum(axis=0)
    words = max(1.0, words)
    left = (apart - sums[:, 0]) / np.maximum(1, words - sums[:, 1])
    spread = ((count - 1) / count * float(np.square(left - left.mean()).sum())) ** 0.5 * words
    size, alone = abs(apart), float(np.abs(each).sum())
    share = ((alone + size) / 2 + 1) / (
        alone + 2
    )  # of the errors that only one system makes, the number of the worse system
    by_chance = (4 * alone * share * (1 - share)) ** 0.5
    half = max(_student(count) * spread, _NORMAL * by_chance + min(1.0, alone))
    by_groups = 2 * special.stdtr(count - 1, -size / spread) if spread else float(not size)
    by_words = 2 * special.ndtr(-max(0.0, size - 1) / by_chance) if alone else 1.0
    interval = float((apart - half) / words), float((apart + half) / words)
    return Paired(interval, float(max(by_groups, by_words)))


def matched_pairs(differences: ArrayLike) -> float:
    """Two-sided p of the matched-pairs test of NIST's SCTK (Gillick and Cox 1989, ICASSP): the mean difference of
    errors per segment over its standard error, by the normal distribution. Assumes independent utterances. If all
    differences are equal, so that the standard error is 0, uses the sign test."""
    each = np.asarray(differences, float)
    if not each.any():
        return 1.0
    error = each.std(ddof=1) / len(each) ** 0.5 if len(each) > 1 else 0.0
    return float(2 * special.ndtr(-abs(each.mean()) / error)) if error else min(1.0, 2 * 0.5 ** len(each))


def _student(groups: int) -> float:
    """Two-sided 95 % quantile."""
    return float(special.stdtrit(groups - 1, 1 - _LEVEL / 2))
