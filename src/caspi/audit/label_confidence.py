"""How sure a label is: the probability that it is right, learnt from clips whose transcripts are known.

Two recognisers of different weights agree on what both hear well; one model's agreement with itself says little. The
probability follows from how far they differ and how sure each is of its words (a logistic regression, as confidences of
recognisers are commonly calibrated, in which doubts never count for a label). The known clips also say how many labels
are right above each threshold, and how much speech is left.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from caspi.audio import Seconds
from caspi.audit.regression import logistic
from caspi.audit.signals import Heard, differs
from caspi.language import language
from caspi.randomness import seeded

_FOLDS, _RIDGE = 5, 1.0
_FEWEST = 50  # known clips; of fewer, nothing can be said about a share of 90 %
_FEWEST_OF_EACH = 8  # right ones and wrong ones: what tells them apart cannot be learnt from fewer
_95_PERCENT = 1.96


@dataclass(frozen=True, slots=True)
class Agreement:
    """Of a clip's two texts. differ: letters to change over those of the longer one, normalised as for the fair score;
    probabilities: mean of the words of each."""

    differ: float
    probabilities: tuple[float, float]

    @classmethod
    def of(cls, one: Heard, other: Heard, spoken: str) -> Agreement:
        normalised = language(spoken).normalisers["fair"]
        differ = differs(normalised(one.text), normalised(other.text))
        return cls(differ, (one.probability, other.probability))

    @property
    def doubts(self) -> tuple[float, ...]:
        """The inputs of the regression: each can only make a label less sure."""
        return self.differ, *(math.log(1.01 - p) for p in self.probabilities)


@dataclass(frozen=True, slots=True)
class KnownClip:
    """A clip whose transcript is known. errors, letters: edits from it to the label, and its letters."""

    agreement: Agreement
    errors: int
    letters: int
    seconds: Seconds

    @property
    def error_rate(self) -> float:
        return self.errors / max(1, self.letters)


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """Labels with at least this confidence. coverage: their share of the seconds; right: share of them that are right,
    with the lower end of its 95 % interval; error_rate: letters."""

    confidence: float
    labels: int
    coverage: float
    right: float
    right_at_least: float
    error_rate: float


@dataclass(frozen=True, slots=True)
class Confidence:
    """curve: by falling confidence. threshold: the lowest confidence above which the wanted share is surely right; None
    if there is none."""

    weights: np.ndarray
    curve: list[CurvePoint]
    threshold: float | None

    def __call__(self, agreements: Sequence[Agreement]) -> np.ndarray:
        """float64 [agreements]: the probability that each label is right."""
        return _probability(self.weights, _inputs(agreements))


def learnt(known: Sequence[KnownClip], most_errors: float, wanted: float) -> Confidence | None:
    """From clips whose transcripts are known; None if they, or the right or the wrong ones, are too few. most_errors:
    the error rate (letters) of a label that still counts as right; wanted: share of the labels that shall be right."""
    right = np.array([clip.error_rate <= most_errors for clip in known], np.float64)
    if len(known) < _FEWEST or min(right.sum(), len(known) - right.sum()) < _FEWEST_OF_EACH:
        return None
    inputs = _inputs([clip.agreement for clip in known])
    fold_of = seeded(0).integers(0, _FOLDS, len(known))
    unseen = np.zeros(len(known))  # each clip by a regression that has not seen it
    for fold in range(_FOLDS):
        left = fold_of == fold
        unseen[left] = _probability(_fitted(inputs[~left], right[~left]), inputs[left])
    curve = _curve(known, unseen, right)
    enough = [point.confidence for point in curve if point.right_at_least >= wanted]
    return Confidence(_fitted(inputs, right), curve, min(enough, default=None))


def _curve(known: Sequence[KnownClip], confidence: np.ndarray, right: np.ndarray) -> list[CurvePoint]:
    order = np.argsort(-confidence, kind="stable")
    count = np.arange(1, len(order) + 1)
    seconds = np.cumsum([known[n].seconds for n in order])
    errors, letters = (np.cumsum([getattr(known[n], name) for n in order]) for name in ("errors", "letters"))
    share = np.cumsum(right[order]) / count
    last = np.append(np.diff(confidence[order]) != 0, True)  # of equal confidences
    return [
        CurvePoint(
            float(confidence[order[n]]), n + 1, float(seconds[n] / seconds[-1]), float(share[n]),
            _at_least(float(share[n]), n + 1), float(errors[n] / max(1, letters[n])),
        )
        for n in np.flatnonzero(last).tolist()
    ]  # fmt: skip


def _at_least(share: float, count: int) -> float:
    """Lower end of the 95 % interval of a share (Wilson 1927)."""
    z = _95_PERCENT**2 / count
    half = _95_PERCENT * math.sqrt(share * (1 - share) / count + z / 4 / count)
    return (share + z / 2 - half) / (1 + z)


def _inputs(agreements: Sequence[Agreement]) -> np.ndarray:
    return np.array([one.doubts for one in agreements], np.float64).reshape(len(agreements), -1)


def _fitted(inputs: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Weights, the constant first; of doubts none is above 0: one that would be is left out."""
    used = list(range(inputs.shape[1]))
    while True:
        found = logistic(inputs[:, used], right, np.ones(len(right)), _RIDGE)
        wrong = [n for n, weight in zip(used, found[1:].tolist(), strict=True) if weight > 0]
        if not wrong:
            break
        used = [n for n in used if n not in wrong]
    weights = np.zeros(1 + inputs.shape[1])
    weights[[0, *(1 + n for n in used)]] = found
    return weights


def _probability(weights: np.ndarray, inputs: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-(inputs @ weights[1:] + weights[0]))))
