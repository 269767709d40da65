"""One score from many signals, learnt from transcripts as they are against the same with faults; what it can find, and
how many transcripts of the corpus are faulty.

The transcripts as they are count as right while the score is learnt, although some are not: that costs a little
sharpness, no more, because a fault that was made is compared with all of them. How many are faulty follows from the
scores: where faults are many and right transcripts few, at the top, the share of the corpus above a threshold over the
share of made faults above it is the share of faulty transcripts (the mixture proportion of learning from positive and
unlabelled data; Elkan and Noto 2008; Scott 2015). It is an upper limit if right transcripts get that far.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from caspi.audit.faults import ANOTHER
from caspi.audit.measurements import MadeFault
from caspi.audit.regression import logistic
from caspi.audit.signals import Signals
from caspi.randomness import seeded

FALSE_ALARMS = 0.05  # share of right transcripts that are flagged
SEEN = 0.5  # smallest recall of a kind of fault that counts as seen
KNOWN = 0.93  # smallest share of transcripts of other utterances that look worse than the best of the corpus
_BEST = 0.3  # of the corpus: right even if 70 % were faulty
_FOLDS, _RIDGE = 5, 1.0
_FARTHEST = 8.0  # spreads from the median at which a signal stops to grow
_MADE_ABOVE = (0.6, 0.98)  # share of made faults above the thresholds of the estimate: most, whatever their kind
_LEAST_SPREAD = 0.5  # of a signal inside of a kind of fault
_RESAMPLES = 200
_MOST = 0.5  # share of faulty transcripts with which right ones can still be told: they must be usual


@dataclass(frozen=True, slots=True)
class Estimate:
    """A share with its 95 % interval."""

    share: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Scorer:
    """A linear score over signals. middle, spread: of each signal in the corpus; weights: the constant first. A signal
    that is missing counts as usual."""

    names: tuple[str, ...]
    middle: np.ndarray
    spread: np.ndarray
    weights: np.ndarray

    def scaled(self, signals: Sequence[Signals]) -> np.ndarray:
        """float64 [signals, names], in spreads from the middle."""
        table = (_table(signals, self.names) - self.middle) / self.spread
        return np.nan_to_num(table).clip(-_FARTHEST, _FARTHEST)

    def __call__(self, signals: Sequence[Signals]) -> np.ndarray:
        """float64 [signals]."""
        return np.asarray(self.scaled(signals) @ self.weights[1:] + self.weights[0])

    def as_json(self) -> dict[str, Any]:
        return {
            "names": list(self.names), "middle": self.middle.tolist(), "spread": self.spread.tolist(),
            "weights": self.weights.tolist(),
        }  # fmt: skip

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Scorer:
        arrays = (np.array(content[name], np.float64) for name in ("middle", "spread", "weights"))
        return cls(tuple(content["names"]), *arrays)


@dataclass(frozen=True, slots=True)
class Scores:
    """own: of the transcripts as they are; made: of those with faults, by kind; parts: float64 [own, signals], what
    each signal adds to a score; looks_like: the kind of made fault that each transcript is most like, if it has one;
    scorer: for other utterances of the corpus."""

    own: np.ndarray
    made: dict[str, np.ndarray]
    parts: np.ndarray
    looks_like: tuple[str, ...]
    scorer: Scorer

    @property
    def names(self) -> tuple[str, ...]:
        """Of the signals."""
        return self.scorer.names


def scored(own: Sequence[Signals], made: Sequence[MadeFault]) -> Scores:
    """Scores by a logistic regression over the signals, each utterance by one that has not seen it (five folds)."""
    names = tuple(sorted({name for signals in own for name in signals}))
    usual = _table(own, names)
    middle = np.nanmedian(usual, axis=0) if names else np.zeros(0)
    spread = middle - np.nanquantile(usual, 0.16, axis=0)  # of the lower half, which faults do not widen
    wide = np.nanstd(usual, axis=0)
    spread = np.where(spread > 1e-6, spread, np.where(wide > 1e-6, wide, 1.0))
    scaling = Scorer(names, middle, spread, np.zeros(1 + len(names)))
    mine, theirs = scaling.scaled(own), scaling.scaled([one.signals for one in made])
    owner = np.array([one.number for one in made], np.int64)
    fold_of = seeded(0).integers(0, _FOLDS, len(own))
    own_scores, made_scores = np.zeros(len(own)), np.zeros(len(made))
    parts = np.zeros_like(mine)
    for fold in range(_FOLDS):
        kept, left = fold_of != fold, fold_of == fold
        weights = _fitted(mine[kept], theirs[kept[owner]])
        parts[left] = mine[left] * weights[1:]
        own_scores[left] = mine[left] @ weights[1:] + weights[0]
        made_scores[left[owner]] = theirs[left[owner]] @ weights[1:] + weights[0]
    kinds = np.array([one.kind for one in made])
    return Scores(
        own_scores, {kind: made_scores[kinds == kind] for kind in dict.fromkeys(kinds.tolist())}, parts,
        _nearest_kinds(mine, theirs, kinds), replace(scaling, weights=_fitted(mine, theirs)),
    )  # fmt: skip


def _nearest_kinds(own: np.ndarray, made: np.ndarray, kinds: np.ndarray) -> tuple[str, ...]:
    """The kind whose made faults are nearest, by the signals' own spread inside of a kind (a discriminant analysis with
    the same, diagonal covariance for all kinds)."""
    names = list(dict.fromkeys(kinds.tolist()))
    if not names:
        return ("",) * len(own)
    middles = np.stack([made[kinds == name].mean(axis=0) for name in names])
    inside = made - middles[[names.index(kind) for kind in kinds.tolist()]]
    spread = np.sqrt(np.square(inside).mean(axis=0)) + _LEAST_SPREAD
    distances = np.square((own[:, None] - middles) / spread).sum(axis=2)
    return tuple(names[n] for n in distances.argmin(axis=1).tolist())


def _table(signals: Sequence[Signals], names: Sequence[str]) -> np.ndarray:
    return np.array([[one.get(name, np.nan) for name in names] for one in signals], np.float64).reshape(-1, len(names))


def _fitted(right: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """Weights of a logistic regression with as much weight on either side, the constant first."""
    inputs = np.concatenate([right, wrong])
    target = np.repeat([0.0, 1.0], [len(right), len(wrong)])
    each = np.where(target == 1, 0.5 / max(1, len(wrong)), 0.5 / max(1, len(right))) * len(inputs)
    return logistic(inputs, target, each, _RIDGE)


@dataclass(frozen=True, slots=True)
class Calibration:
    """threshold: scores above it are flagged, 5 % of the right transcripts among them. recall: share of made faults
    that are flagged, by kind. seen: kinds that this audit can find; the share of faulty transcripts is of these.
    faulty: None if it sees no kind. apart: share of the transcripts of other utterances that look worse than the best
    of the corpus, which are right even if most are faulty."""

    threshold: float
    recall: dict[str, float]
    seen: tuple[str, ...]
    faulty: Estimate | None
    apart: float

    @property
    def knows_this_speech(self) -> bool:
        """Whether the models tell transcripts of other utterances from right ones. If not, an estimate is of what they
        do not know, not of faults."""
        return self.apart >= KNOWN


def apart(scores: Scores) -> float:
    """See `Calibration`. 0 where no such fault could be made."""
    others = scores.made.get(ANOTHER, np.zeros(0))
    return float((others > np.quantile(scores.own, _BEST)).mean()) if len(others) else 0.0


@dataclass(frozen=True, slots=True)
class Sampled:
    """Of transcripts: how many each stands for, and its recording or speaker, whose faults are alike."""

    weights: np.ndarray
    groups: np.ndarray

    @classmethod
    def alike(cls, count: int) -> Sampled:
        """Transcripts that stand for themselves, each of another group."""
        return cls(np.ones(count), np.arange(count))

    def __getitem__(self, places: np.ndarray | list[int]) -> Sampled:
        return Sampled(self.weights[places], self.groups[places])

    @property
    def effective(self) -> float:
        """How many equal weights have the same variance (Kish)."""
        return float(self.weights.sum() ** 2 / np.square(self.weights).sum())


def calibrated(scores: Scores, sampled: Sampled) -> Calibration:
    """What the scores can find, and how much of it there is."""
    seen = tuple(scores.made)
    while seen:
        made = [scores.made[kind] for kind in seen]
        share = faulty_share(scores.own, sampled, made)
        threshold, recall = _threshold(scores, sampled.weights, share, seen)
        still = tuple(kind for kind in seen if recall[kind] >= SEEN)
        if still == seen:
            return Calibration(threshold, recall, seen, estimated(scores.own, sampled, made), apart(scores))
        seen = still  # the share is of fewer kinds now, and the threshold moves with it
    threshold, recall = _threshold(scores, sampled.weights, 0.0, ())
    return Calibration(threshold, recall, (), None, apart(scores))


def _threshold(
    scores: Scores, weights: np.ndarray, share: float, seen: Sequence[str]
) -> tuple[float, dict[str, float]]:
    """The lowest threshold with at most 5 % false alarms, if `share` of the transcripts are faulty; recall by kind."""
    order = np.argsort(-scores.own)
    above = np.cumsum(weights[order]) / weights.sum()
    faults = np.zeros(len(order))
    for kind in seen:
        made = np.sort(scores.made[kind])
        faults += (len(made) - np.searchsorted(made, scores.own[order])) / len(made) / len(seen)
    share = min(share, _MOST)
    false_alarms = (above - share * faults) / (1 - share)
    allowed = np.flatnonzero(false_alarms <= FALSE_ALARMS)
    threshold = float(scores.own[order][allowed[-1]]) if len(allowed) else float(scores.own.max()) + 1e-9
    return threshold, {kind: float((made >= threshold).mean()) for kind, made in scores.made.items()}


def faulty_share(own: np.ndarray, sampled: Sampled, made: Sequence[np.ndarray]) -> float:
    """Of the transcripts with scores `own`, against those of every kind of made fault, which count the same. Taken at
    the threshold where it is surely lowest: a higher one has fewer right transcripts, and fewer to count."""
    thresholds = np.quantile(np.concatenate(made), 1 - np.linspace(*_MADE_ABOVE, 25))
    of_made = np.array([np.mean([(one >= at).mean() for one in made]) for at in thresholds])
    of_own = np.array([sampled.weights[own >= at].sum() for at in thresholds]) / sampled.weights.sum()
    surely_below = of_own + 1.64 * np.sqrt((of_own + 1 / sampled.effective) / sampled.effective)
    best = int(np.argmin(surely_below / np.maximum(of_made, 1e-9)))
    return float(min(1.0, of_own[best] / max(of_made[best], 1e-9)))


def estimated(own: np.ndarray, sampled: Sampled, made: Sequence[np.ndarray]) -> Estimate:
    """`faulty_share` with the wider of two intervals: of resampled utterances, and of resampled groups, which says too
    little where groups are few."""
    share = faulty_share(own, sampled, made)
    bounds = [_resampled(own, sampled, made, np.arange(len(own)))]
    if len(np.unique(sampled.groups)) < len(own):
        bounds.append(_resampled(own, sampled, made, sampled.groups))
    low, high = min(low for low, _ in bounds), max(high for _, high in bounds)
    # Nothing found in n transcripts: with 95 % certainty fewer than 3 / n are faulty (the rule of three).
    return Estimate(share, float(min(low, share)), float(min(1.0, max(high, share, 3 / sampled.effective))))


def _resampled(
    own: np.ndarray, sampled: Sampled, made: Sequence[np.ndarray], groups: np.ndarray
) -> tuple[float, float]:
    """The middle 95 % of `faulty_share` over draws of groups, and of made faults."""
    draw = seeded(1)
    _, group_of = np.unique(groups, return_inverse=True)
    members = np.split(np.argsort(group_of, kind="stable"), np.cumsum(np.bincount(group_of))[:-1])
    again = []
    for _ in range(_RESAMPLES):
        places = np.concatenate([members[n] for n in draw.integers(0, len(members), len(members))])
        faults = [one[draw.integers(0, len(one), len(one))] for one in made]
        again.append(faulty_share(own[places], sampled[places], faults))
    low, high = np.quantile(again, [0.025, 0.975])
    return float(low), float(high)
