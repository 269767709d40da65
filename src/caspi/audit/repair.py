"""Repairs the transcripts that an audit flags. A repair counts only if the audit, measuring it again, flags it no more,
and if the same action would rarely make a wrong text look as well; what cannot be repaired is dropped or marked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from caspi.audio import Seconds
from caspi.audit.calibration import Scorer
from caspi.audit.proposals import FEWEST_RECOGNISERS, PartLimits, Proposal, Proposals, parted
from caspi.audit.signals import WEAKEST_WORDS, Listeners, Signals
from caspi.config import Config, Unit
from caspi.corpus.derived import NewUtterance
from caspi.corpus.store import Corpus
from caspi.errors import UsageError
from caspi.progress import Progress
from caspi.randomness import seeded

Action = Literal["move_boundaries", "cut", "numbers"]
_NEARLY_ALL = 0.95  # of the utterances that are not flagged have surer words
_WRONG_TEXTS = 200  # utterances with texts of others


class RepairPolicy(Config):
    """What is done with the utterances that an audit flags."""

    actions: tuple[Action, ...] = ("move_boundaries", "cut", "numbers")
    """What is tried, in this order; the first that helps is taken. `move_boundaries`: neighbouring utterances of one
    recording are joined, and cut where the words of each begin. `cut`: the parts whose words are in the audio are kept,
    each as an utterance of its own. `numbers`: a number is replaced by the one that all recognisers heard; it needs at
    least two that agree on it."""
    otherwise: Literal["drop", "mark"] = "drop"
    """What becomes of an utterance that nothing helps: it is left out, or it stays as it is and is listed for people
    to look at."""
    threshold: float | None = Field(None, allow_inf_nan=False)
    """Scores from which an utterance is repaired. Without it, that of the audit."""
    min_seconds: Seconds = Field(1.0, gt=0, allow_inf_nan=False)
    """Shortest part that is kept."""
    min_words: int = Field(2, ge=1)
    """Fewest words of a part that is kept."""
    min_share: Annotated[float, Unit("share")] = Field(0.3, ge=0, le=1)
    """Smallest share of an utterance's words that its parts keep: of a text that is wrong, a few words may be found by
    chance."""
    by_chance: Annotated[float, Unit("share")] = Field(0.05, gt=0, lt=1)
    """Share of texts that are wrong altogether for which an action may propose something that is accepted. It is
    measured on utterances that are not flagged, with texts of others."""
    max_dropped: Annotated[float, Unit("share")] = Field(0.5, gt=0, le=1)
    """If more than this share of the utterances would be dropped, no corpus is made."""


@dataclass(frozen=True, slots=True)
class AuditedCorpus:
    """What an audit says about a corpus. scores: of the audited rows; signals: of each; reasons: of the flagged ones;
    threshold: from which a row is flagged; faulty: share of the transcripts that are."""

    scores: dict[int, float]
    signals: dict[int, Signals]
    reasons: dict[int, tuple[str, ...]]
    threshold: float
    faulty: float
    scorer: Scorer

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> AuditedCorpus:
        """From alignment_report.json. Raises UsageError if the audit judged nothing."""
        if content["low_quality_fraction"] is None:
            raise UsageError("this audit could not tell right transcripts from faulty ones: audit with other models")
        utterances = content["utterances"]
        return cls(
            {one["row"]: one["score"] for one in utterances},
            {one["row"]: one["signals"] for one in utterances},
            {one["row"]: tuple(one["reasons"]) for one in utterances if one["flagged"]},
            content["threshold"],
            content["low_quality_fraction"],
            Scorer.from_json(content["scorer"]),
        )


@dataclass(frozen=True, slots=True)
class Version:
    """An utterance before or after a repair. score: None if it was not audited. start: in the clip before, or in it and
    its neighbours joined."""

    id: str
    text: str
    seconds: Seconds
    score: float | None
    start: Seconds = 0.0


@dataclass(frozen=True, slots=True)
class Change:
    """What became of a row. action: an action of the policy, drop or mark. after: none if it was dropped."""

    row: int
    action: str
    before: Version
    after: tuple[Version, ...]
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Repaired:
    """The content of a repair. input: rows of the split; replaced: the new utterances of every row that is not kept;
    untold: rows whose previous text is no longer that of the utterance before them."""

    input: int
    audited: int
    changes: list[Change]
    replaced: dict[int, list[NewUtterance]]
    untold: frozenset[int]

    @property
    def dropped(self) -> int:
        return sum(change.action == "drop" for change in self.changes)

    @property
    def marked(self) -> int:
        return sum(change.action == "mark" for change in self.changes)

    @property
    def changed(self) -> int:
        return len(self.changes) - self.dropped - self.marked

    @property
    def kept(self) -> int:
        return self.input - self.changed - self.dropped

    def as_json(self) -> dict[str, Any]:
        return {
            "input": self.input, "kept": self.kept, "changed": self.changed, "dropped": self.dropped,
            "marked": self.marked, "audited": self.audited,
            "written": self.kept + sum(len(new) for new in self.replaced.values()),
            "changes": [asdict(change) for change in self.changes],
        }  # fmt: skip


def repair(corpus: Corpus, audited: AuditedCorpus, listeners: Listeners, policy: RepairPolicy) -> Repaired:
    """Repairs the flagged rows. Raises UsageError for an action that needs a model the audit did not have."""
    return _Repair(corpus, audited, listeners, policy).run()


class _Repair:
    def __init__(self, corpus: Corpus, audited: AuditedCorpus, listeners: Listeners, policy: RepairPolicy) -> None:
        if listeners.aligner is None and {"move_boundaries", "cut"} & set(policy.actions):
            raise UsageError(
                "the audit had no aligner, which move_boundaries and cut need: audit again with --aligner, or remove "
                "them from the policy's actions"
            )
        self._corpus, self._audited, self._listeners, self._policy = corpus, audited, listeners, policy
        self._threshold = audited.threshold if policy.threshold is None else policy.threshold
        limits = PartLimits(
            _least_confidence(audited, self._threshold), policy.min_seconds, policy.min_words, policy.min_share
        )
        self._proposals = Proposals(corpus, listeners, audited.scorer, limits, frozenset(corpus.column("id")))
        # By the score that changes have: an utterance that it would not flag is left as it is.
        rows = list(audited.scores)
        again = audited.scorer([audited.signals[row] for row in rows]).tolist()
        self._scores = {row: min(audited.scores[row], score) for row, score in zip(rows, again, strict=True)}
        self._before_by_scorer = dict(zip(rows, again, strict=True))
        self._changes: dict[int, Change] = {}
        self._replaced: dict[int, list[NewUtterance]] = {}

    def run(self) -> Repaired:
        flagged = {row for row, score in self._scores.items() if score >= self._threshold}
        trusted = sorted(self._scores.keys() - flagged)
        left = sorted(flagged)
        for action in self._policy.actions:
            if not left or (action == "numbers" and len(self._listeners.recognisers) < FEWEST_RECOGNISERS):
                continue
            name = f"repair: {action.replace('_', ' ')}"
            with Progress(name, unit="utterances", total=len(left)) as progress:
                accepted_below = min(self._threshold, self._by_chance(action, trusted))
                for block in _blocks(left, self._listeners.at_once):
                    self._try(action, block, flagged, accepted_below)
                    progress.advance(len(block))
            left = [row for row in left if row not in self._changes]
        for row in left:
            self._give_up(row)
        untold = self._untold()
        for row in untold & self._replaced.keys():
            self._replaced[row] = [
                replace(new, utterance=replace(new.utterance, previous="")) for new in self._replaced[row]
            ]
        changes = [self._changes[row] for row in sorted(self._changes)]
        return Repaired(len(self._corpus), len(self._audited.scores), changes, self._replaced, untold)

    def _by_chance(self, action: Action, trusted: Sequence[int]) -> float:
        """The score below which a change is accepted: of utterances that are not flagged, with the text of another, the
        action would make few look so well. An utterance's best part is better than a whole one by chance, so that the
        audit's threshold is too lenient for it."""
        if action == "numbers":  # the recognisers' agreement says that it is no chance
            return self._threshold
        chosen = seeded(0).permutation(len(trusted))[:_WRONG_TEXTS]
        rows = sorted(trusted[n] for n in chosen.tolist())
        wrong = self._proposals.with_texts_of_others(rows)
        found: list[float] = []
        for block in _blocks(rows, self._listeners.at_once):
            if action == "cut":
                best = {row: wrong.enough_below(row, some) for row, some in wrong.cut(block).items()}
            else:
                runs = [(row, row + 1) for row in block if row + 1 < len(self._corpus) and wrong.follows(row + 1)]
                best = {some[0].row: some[0].score for some in wrong.move_boundaries(runs) if some}
            found += [best.get(row, float("inf")) for row in block]
        return float(np.quantile(found, self._policy.by_chance, method="lower")) if found else -float("inf")

    def _try(self, action: Action, rows: Sequence[int], flagged: AbstractSet[int], below: float) -> None:
        """Takes the proposals that are good enough."""
        if action == "move_boundaries":
            self._move_boundaries(rows, flagged, below)
            return
        proposed = self._proposals.cut(rows) if action == "cut" else self._proposals.numbers(rows)
        for row, some in proposed.items():
            good = [one for one in some if one.score < below]
            if self._proposals.is_enough(row, good):
                self._take(action, row, good)

    def _move_boundaries(self, rows: Sequence[int], flagged: AbstractSet[int], below: float) -> None:
        """All clips of a run whose boundaries move are good, or none is taken. A clip that this does not help is left
        out, and those beside it are tried without it."""
        runs = self._proposals.runs(rows, self._scores.keys() - self._changes.keys())
        while runs:
            following: list[tuple[int, ...]] = []
            before = self._before_by_scorer  # one that is not flagged must not get worse
            for run, some in zip(runs, self._proposals.move_boundaries(runs), strict=True):
                bad = {one.row for one in some if one.score >= (below if one.row in flagged else before[one.row])}
                if bad:
                    following += [part for part in parted(run, bad) if flagged & set(part)]
                elif flagged & {one.row for one in some}:
                    for one in some:
                        self._take("move_boundaries", one.row, [one])
            runs = following

    def _untold(self) -> frozenset[int]:
        """Rows after one whose text is gone, or another."""
        return frozenset(
            row + 1
            for row, new in self._replaced.items()
            if row + 1 < len(self._corpus) and [one.utterance.text for one in new] != [self._corpus.utterance(row).text]
        )

    def _take(self, action: Action, row: int, chosen: Sequence[Proposal]) -> None:
        after = tuple(
            Version(made.utterance.id, made.utterance.text, made.end - made.start, one.score, made.start)
            for one in chosen
            for made in (one.made,)
        )
        self._changes[row] = Change(row, action, self._before(row), after, self._audited.reasons.get(row, ()))
        self._replaced[row] = [one.made for one in chosen]

    def _give_up(self, row: int) -> None:
        action = self._policy.otherwise
        self._changes[row] = Change(row, action, self._before(row), (), self._audited.reasons.get(row, ()))
        if action == "drop":
            self._replaced[row] = []

    def _before(self, row: int) -> Version:
        utterance = self._corpus.utterance(row)
        return Version(utterance.id, utterance.text, utterance.seconds, self._audited.scores.get(row))


def _least_confidence(audited: AuditedCorpus, threshold: float) -> float:
    """Of words that are in the audio: nearly all utterances that are not flagged have surer ones."""
    weakest = [
        audited.signals[row][WEAKEST_WORDS]
        for row, score in audited.scores.items()
        if score < threshold and WEAKEST_WORDS in audited.signals[row]
    ]
    return 1 - float(np.quantile(weakest, _NEARLY_ALL)) if weakest else 0.0


def _blocks(rows: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    for first in range(0, len(rows), size):
        yield rows[first : first + size]
