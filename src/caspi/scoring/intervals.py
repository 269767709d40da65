"""Could it be luck? Intervals of error rates and paired tests, over what fails together.

Both rest on the delete-one-group jackknife and Student's distribution with one degree of freedom fewer than groups.
A bootstrap of groups was here before: it covered 78 to 85 % where speakers have unequal amounts of speech, or few
errors (docs/log.md, 2026-11-30).
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
_TOGETHER = 2.0  # errors that come at once, in one utterance, where rates are low
_FEW_ERRORS = 10  # of which one group may hold most by chance


class Paired(NamedTuple):
    """interval: 95 %, None of a single group; p: two-sided, of the same test, below 0.05 just where the interval
    excludes 0."""

    interval: Interval | None
    p: float


def by_group(values: Sequence[ArrayLike], groups: Sequence[Hashable]) -> np.ndarray:
    """Sums [groups, columns] of columns of per-utterance values."""
    index = {group: position for position, group in enumerate(dict.fromkeys(groups))}
    places = np.array([index[group] for group in groups], np.int64)
    return np.stack([np.bincount(places, np.asarray(column, float), len(index)) for column in values], axis=1)


def rate_interval(errors: ArrayLike, lengths: ArrayLike, groups: Sequence[Hashable]) -> Interval | None:
    """95 % interval of errors over lengths. None where all are of one group, or where one group holds most of the
    errors and has more errors than words (a loop): such data says nothing of other groups.

    On the logit of the rate, so that it stays between 0 and 1 and is as skewed as rates near either end are; on its
    logarithm where groups have more errors than words, which rates have no end for. Never narrower than if errors came
    independently of each other in twos; where nothing is wrong, the exact binomial bound of that: an interval without a
    width would be a claim.
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
    without = np.array([wrong, words]) - np.append(sums, [[0, 0]], axis=0)  # the last one leaves no group out
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
    """Interval and test of the sum of differences over the sum of lengths. differences: errors of one system less
    those of the other, an utterance each.

    The wider of two intervals, and the larger of their p-values: of the jackknife over groups, and of errors that are
    one system's alone, taken as independent (as in McNemar's test, with its correction for continuity): three errors
    that happen to fall alike in two groups prove nothing.
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
    )  # of errors that are one system's alone, how many are the worse one's
    by_chance = (4 * alone * share * (1 - share)) ** 0.5
    half = max(_student(count) * spread, _NORMAL * by_chance + min(1.0, alone))
    by_groups = 2 * special.stdtr(count - 1, -size / spread) if spread else float(not size)
    by_words = 2 * special.ndtr(-max(0.0, size - 1) / by_chance) if alone else 1.0
    interval = float((apart - half) / words), float((apart + half) / words)
    return Paired(interval, float(max(by_groups, by_words)))


def matched_pairs(differences: ArrayLike) -> float:
    """Two-sided p of the matched-pairs test that NIST's SCTK makes (Gillick and Cox 1989, ICASSP): the mean difference
    of errors a segment over its standard error, by the normal distribution. Takes utterances as independent. Where all
    differences are equal, and the standard error is 0, the sign test of them."""
    each = np.asarray(differences, float)
    if not each.any():
        return 1.0
    error = each.std(ddof=1) / len(each) ** 0.5 if len(each) > 1 else 0.0
    return float(2 * special.ndtr(-abs(each.mean()) / error)) if error else min(1.0, 2 * 0.5 ** len(each))


def _student(groups: int) -> float:
    """Two-sided 95 % quantile."""
    return float(special.stdtrit(groups - 1, 1 - _LEVEL / 2))
