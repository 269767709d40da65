"""Confidence intervals of error rates and paired tests, over groups of utterances with correlated errors.

Both use the delete-one-group jackknife and Student's distribution with one degree of freedom fewer than groups.
An earlier version used a bootstrap of groups: it covered only 78 to 85 % when speakers have unequal amounts of speech,
or few errors (docs/log/2026-11-30.md).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

Interval = tuple[float, float]
_ALPHA = 0.05
_NORMAL_QUANTILE = float(special.ndtri(1 - _ALPHA / 2))
_CLUSTER_SIZE = 2.0  # errors that occur together in one utterance, at low rates
_FEW_ERRORS = 10  # with so few errors, one group may have most of them by chance


class Paired(NamedTuple):
    """interval: 95 %, None for a single group; p: two-sided, of the same test, below 0.05 exactly if the interval
    excludes 0."""

    interval: Interval | None
    p: float


def by_group(values: Sequence[ArrayLike], groups: Sequence[Hashable]) -> np.ndarray:
    """Sums [groups, columns] of columns of per-utterance values."""
    index = {group: position for position, group in enumerate(dict.fromkeys(groups))}
    group_indices = np.array([index[group] for group in groups], np.int64)
    return np.stack([np.bincount(group_indices, np.asarray(column, float), len(index)) for column in values], axis=1)


def rate_interval(errors: ArrayLike, lengths: ArrayLike, groups: Sequence[Hashable]) -> Interval | None:
    """95 % interval of errors over lengths. None if all are in one group, or if one group has most of the errors and
    more errors than words (a loop): such data gives no information about other groups.

    Computed on the logit of the rate, so that it stays between 0 and 1 and is skewed like rates near either end. If
    groups have more errors than words, the rate has no upper bound, and its logarithm is used. The interval is never
    narrower than if errors came in independent pairs. Without errors, it is the exact binomial bound under the same
    assumption, because an interval of zero width would claim too much.
    """
    sums = by_group((errors, lengths), groups)
    count = len(sums)
    if count < 2:
        return None
    total_errors, words = sums.sum(axis=0)
    if not total_errors:
        return 0.0, float(1 - (_ALPHA / 2) ** (_CLUSTER_SIZE / max(1.0, words)))
    worst = sums[sums[:, 0].argmax()]
    if worst[0] > total_errors / 2 and worst[0] > worst[1] and total_errors > _FEW_ERRORS:
        return None
    # The last row leaves no group out.
    leave_one_out = np.array([total_errors, words]) - np.append(sums, [[0, 0]], axis=0)
    rates = (leave_one_out[:, 0] + 1) / (leave_one_out[:, 1] + 2)
    bounded = bool((sums[:, 0] <= sums[:, 1]).all())
    scaled = special.logit(rates) if bounded else np.log(rates)
    variance = (count - 1) / count * float(np.square(scaled[:-1] - scaled[:-1].mean()).sum())
    correct = _CLUSTER_SIZE / (words - total_errors + 1) if bounded else 0
    variance_if_independent = _CLUSTER_SIZE / (total_errors + 1) + correct
    half_width = max(_student(count) * variance**0.5, _NORMAL_QUANTILE * variance_if_independent**0.5)
    ends = scaled[-1] - half_width, scaled[-1] + half_width
    low, high = special.expit(ends) if bounded else np.exp(ends)
    rate = total_errors / max(1.0, words)
    return float(min(low, rate)), float(max(high, rate))


def mean_interval(values: ArrayLike, groups: Sequence[Hashable]) -> Interval | None:
    """95 % interval of the mean of values that are not negative; None if all are in one group."""
    per_value = np.asarray(values, float)
    sums = by_group((per_value, np.ones(len(per_value))), groups)
    count = len(sums)
    if count < 2:
        return None
    total, number = sums.sum(axis=0)
    leave_one_out = (total - sums[:, 0]) / (number - sums[:, 1])
    deviation = ((count - 1) / count * float(np.square(leave_one_out - leave_one_out.mean()).sum())) ** 0.5
    mean = total / number
    return float(max(0.0, mean - _student(count) * deviation)), float(mean + _student(count) * deviation)


def paired(differences: ArrayLike, lengths: ArrayLike, groups: Sequence[Hashable]) -> Paired:
    """Interval and test of the sum of differences over the sum of lengths. differences: errors of one system minus
    errors of the other, one value per utterance.

    Takes the wider of two intervals, and the larger of their p-values: that of the jackknife over groups, and that of
    the errors that only one system makes, assumed independent (as in McNemar's test, with its correction for
    continuity). Without the second, three errors with the same pattern in two groups could look significant.
    """
    per_utterance = np.asarray(differences, float)
    sums = by_group((per_utterance, lengths), groups)
    count = len(sums)
    if count < 2:
        return Paired(None, 1.0)
    difference, words = sums.sum(axis=0)
    words = max(1.0, words)
    leave_one_out = (difference - sums[:, 0]) / np.maximum(1, words - sums[:, 1])
    deviation = ((count - 1) / count * float(np.square(leave_one_out - leave_one_out.mean()).sum())) ** 0.5 * words
    magnitude, discordant = abs(difference), float(np.abs(per_utterance).sum())
    # Share of the worse system in the errors that only one system makes.
    share = ((discordant + magnitude) / 2 + 1) / (discordant + 2)
    chance_deviation = (4 * discordant * share * (1 - share)) ** 0.5
    half_width = max(_student(count) * deviation, _NORMAL_QUANTILE * chance_deviation + min(1.0, discordant))
    p_groups = 2 * special.stdtr(count - 1, -magnitude / deviation) if deviation else float(not magnitude)
    p_errors = 2 * special.ndtr(-max(0.0, magnitude - 1) / chance_deviation) if discordant else 1.0
    interval = float((difference - half_width) / words), float((difference + half_width) / words)
    return Paired(interval, float(max(p_groups, p_errors)))


def matched_pairs(differences: ArrayLike) -> float:
    """Two-sided p of the matched-pairs test of NIST's SCTK (Gillick and Cox 1989, ICASSP): the mean difference of
    errors per segment over its standard error, by the normal distribution. Assumes independent utterances. If all
    differences are equal, so that the standard error is 0, uses the sign test."""
    per_utterance = np.asarray(differences, float)
    if not per_utterance.any():
        return 1.0
    standard_error = per_utterance.std(ddof=1) / len(per_utterance) ** 0.5 if len(per_utterance) > 1 else 0.0
    return (
        float(2 * special.ndtr(-abs(per_utterance.mean()) / standard_error))
        if standard_error
        else min(1.0, 2 * 0.5 ** len(per_utterance))
    )


def _student(groups: int) -> float:
    """Two-sided 95 % quantile."""
    return float(special.stdtrit(groups - 1, 1 - _ALPHA / 2))
