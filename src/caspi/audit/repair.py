"""Repairs the transcripts that an audit flags. A repair counts only if the audit, measuring it again, flags it no more;
what cannot be repaired is dropped or marked for people."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from caspi.alignment.align import AlignedWord, AlignmentRequest
from caspi.audio import SAMPLE_RATE, Seconds
from caspi.audit.calibration import Scorer
from caspi.audit.faults import Case
from caspi.audit.pieces import found_parts, new_boundaries, with_numbers_as_heard
from caspi.audit.signals import WEAKEST_WORDS, Listeners, Signals, measured
from caspi.config import Config, Unit
from caspi.corpus.derived import NewUtterance
from caspi.corpus.store import Corpus
from caspi.corpus.utterance import Utterance
from caspi.errors import UsageError
from caspi.language import language
from caspi.language.spoken_words import SpokenWord, spoken_words
from caspi.progress import Progress

Action = Literal["move_boundaries", "cut", "numbers"]
_NEARLY_ALL = 0.95  # of the utterances that are not flagged have surer words
_MOVED: Seconds = 0.1  # a boundary that moves less stays
_MOST_NEIGHBOURS = 12  # clips joined to move their boundaries
_FEWEST_RECOGNISERS = 2


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
    threshold: float | None = None
    """Scores from which an utterance is repaired. Without it, that of the audit."""
    min_seconds: Seconds = Field(1.0, gt=0)
    """Shortest part that is kept."""
    min_words: int = Field(2, ge=1)
    """Fewest words of a part that is kept."""
    min_share: Annotated[float, Unit("share")] = Field(0.3, ge=0, le=1)
    """Smallest share of an utterance's words that its parts keep: of a text that is wrong, a few words may be found by
    chance."""


@dataclass(frozen=True, slots=True)
class AuditedCorpus:
    """What an audit says about a corpus. scores: of the audited rows; signals: of each; reasons: of the flagged ones;
    threshold: from which a row is flagged."""

    scores: dict[int, float]
    signals: dict[int, Signals]
    reasons: dict[int, tuple[str, ...]]
    threshold: float
    scorer: Scorer

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> AuditedCorpus:
        """From alignment_report.json. Raises UsageError if the audit judged nothing."""
        if content.get("low_quality_fraction") is None or "scorer" not in content:
            raise UsageError("this audit judged no utterance (CAUTION), or is of an older caspi: audit again")
        utterances = content["utterances"]
        return cls(
            {one["row"]: one["score"] for one in utterances},
            {one["row"]: one["signals"] for one in utterances},
            {one["row"]: tuple(one["reasons"]) for one in utterances if one["flagged"]},
            content["threshold"],
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


@dataclass(frozen=True, slots=True)
class _New:
    """A proposed utterance in place of a row, or of a part of it."""

    row: int
    made: NewUtterance


def repair(corpus: Corpus, audited: AuditedCorpus, listeners: Listeners, policy: RepairPolicy) -> Repaired:
    """Repairs the flagged rows. Raises UsageError for an action that needs a model the audit did not have."""
    return _Repair(corpus, audited, listeners, policy).run()


class _Repair:
    def __init__(self, corpus: Corpus, audited: AuditedCorpus, listeners: Listeners, policy: RepairPolicy) -> None:
        self._corpus, self._audited, self._listeners, self._policy = corpus, audited, listeners, policy
        self._threshold = audited.threshold if policy.threshold is None else policy.threshold
        self._least = _least_confidence(audited, self._threshold)
        self._changes: dict[int, Change] = {}
        self._replaced: dict[int, list[NewUtterance]] = {}
        if listeners.aligner is None and {"move_boundaries", "cut"} & set(policy.actions):
            raise UsageError(
                "the audit had no aligner, which move_boundaries and cut need: audit again with --aligner, or remove "
                "them from the policy's actions"
            )

    def run(self) -> Repaired:
        left = sorted(row for row, score in self._audited.scores.items() if score >= self._threshold)
        actions: dict[Action, Callable[[Sequence[int]], None]] = {
            "move_boundaries": self._move_boundaries, "cut": self._cut, "numbers": self._write_numbers,
        }  # fmt: skip
        for action in self._policy.actions:
            if action == "numbers" and len(self._listeners.recognisers) < _FEWEST_RECOGNISERS:
                continue
            name = f"repair: {action.replace('_', ' ')}"
            with Progress(name, unit="utterances", total=len(left)) as progress:
                for block in _blocks(left, self._listeners.at_once):
                    actions[action](block)
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

    def _untold(self) -> frozenset[int]:
        """Rows after one whose text is gone, or another."""
        return frozenset(
            row + 1
            for row, new in self._replaced.items()
            if row + 1 < len(self._corpus) and [one.utterance.text for one in new] != [self._corpus.utterance(row).text]
        )

    # --- actions

    def _cut(self, rows: Sequence[int]) -> None:
        """The parts of a clip whose words are there, each by itself."""
        policy, proposed = self._policy, []
        for row, words in zip(rows, self._words_of([(row,) for row in rows]), strict=True):
            utterance, samples = self._corpus.utterance(row), self._corpus.samples(row)
            parts = found_parts(words, samples, self._least, policy.min_seconds, policy.min_words) if words else []
            if [part.text for part in parts] == [utterance.text] and parts[0].end - parts[0].start == utterance.seconds:
                continue  # nothing to cut
            for number, part in enumerate(parts, 1):
                name = utterance.id if len(parts) == 1 else f"{utterance.id}-{number}"
                made = replace(_without_times(utterance), id=name, text=part.text, previous="")
                proposed.append(_New(row, NewUtterance(made, (row,), part.start, part.end)))
        scores = self._scores(proposed)
        good = [(new, score) for new, score in zip(proposed, scores, strict=True) if score < self._threshold]
        for row, some in itertools.groupby(good, key=lambda one: one[0].row):
            chosen = list(some)
            kept = sum(len(_words(new.made.utterance)) for new, _ in chosen)
            if kept >= policy.min_share * len(_words(self._corpus.utterance(row))):
                self._take("cut", row, chosen)

    def _move_boundaries(self, rows: Sequence[int]) -> None:
        """Neighbours in a recording, joined, and each with its own words. A clip that this does not help is left out,
        and those beside it are tried without it."""
        runs = list(self._runs(rows))
        while runs:
            found = zip(runs, self._words_of(runs), strict=True)
            proposed = [list(self._cut_again(run, words)) if words else [] for run, words in found]
            scores = iter(self._scores([new for some in proposed for new in some]))
            following: list[tuple[int, ...]] = []
            for run, some in zip(runs, proposed, strict=True):
                scored = [(new, next(scores)) for new in some]
                bad = {new.row for new, score in scored if score >= self._threshold}
                if bad:
                    following += _parted(run, bad)
                else:
                    for new, score in scored:
                        self._take("move_boundaries", new.row, [(new, score)])
            runs = following

    def _runs(self, rows: Sequence[int]) -> Iterator[tuple[int, ...]]:
        """The rows with their neighbours of the same recording, as runs of two rows or more."""
        run: list[int] = []
        near = {beside for row in rows for beside in (row - 1, row, row + 1) if 0 <= beside < len(self._corpus)}
        for row in sorted(near - self._changes.keys()):
            if run and (row != run[-1] + 1 or len(run) == _MOST_NEIGHBOURS or not self._follows(row)):
                yield from _long_enough(run)
                run = []
            run.append(row)
        yield from _long_enough(run)

    def _follows(self, row: int) -> bool:
        """Whether a row continues the recording of the row before it."""
        one, other = self._corpus.utterance(row - 1), self._corpus.utterance(row)
        return bool(one.group) and (one.group, one.source) == (other.group, other.source)

    def _cut_again(self, run: Sequence[int], words: Sequence[AlignedWord]) -> Iterator[_New]:
        """Clips of which at least one boundary moves; the others of the run are not proposed."""
        utterances = [self._corpus.utterance(row) for row in run]
        counts = [len(_words(utterance)) for utterance in utterances]
        if sum(counts) != len(words) or not all(counts):
            return
        joined = np.concatenate([self._corpus.samples(row) for row in run])
        before = np.cumsum([0.0, *(utterance.seconds for utterance in utterances)]).tolist()
        after = [0.0, *new_boundaries(counts, words, joined), len(joined) / SAMPLE_RATE]
        moved = [abs(one - other) > _MOVED for one, other in zip(before, after, strict=True)]
        for n, row in enumerate(run):
            if moved[n] or moved[n + 1]:
                made = NewUtterance(_without_times(utterances[n]), tuple(run), after[n], after[n + 1])
                yield _New(row, made)

    def _write_numbers(self, rows: Sequence[int]) -> None:
        """The numbers that all recognisers heard; at least two, because one may have heard wrongly."""
        cases = [self._case(row) for row in rows]
        heard = [recogniser.heard(cases) for recogniser in self._listeners.recognisers]
        proposed = []
        for row, case, *said in zip(rows, cases, *heard, strict=True):
            texts = {with_numbers_as_heard(case.text, its.text, case.language) for its in said}
            text = texts.pop()
            if text is not None and not texts:
                utterance = self._corpus.utterance(row)
                made = replace(_without_times(utterance), text=text)
                proposed.append(_New(row, NewUtterance(made, (row,), 0.0, utterance.seconds)))
        for new, score in zip(proposed, self._scores(proposed), strict=True):
            if score < self._threshold:
                self._take("numbers", new.row, [(new, score)])

    # --- what they share

    def _case(self, row: int) -> Case:
        utterance = self._corpus.utterance(row)
        return Case(self._corpus.samples(row), utterance.text, utterance.language)

    def _words_of(self, runs: Sequence[Sequence[int]]) -> list[tuple[AlignedWord, ...]]:
        """The words of every run of clips, joined; none where they cannot be aligned."""
        aligner = self._listeners.aligner
        assert aligner is not None  # the constructor has checked it
        requests: dict[int, AlignmentRequest] = {}
        for number, run in enumerate(runs):
            cases = [self._case(row) for row in run]
            joined = np.concatenate([case.samples for case in cases])
            text, spoken = " ".join(case.text for case in cases), cases[0].language
            fits = aligner.any_length or len(joined) <= aligner.longest * SAMPLE_RATE
            if fits and spoken_words(text, language(spoken).unit):
                requests[number] = AlignmentRequest(joined, text, spoken)
        found = dict(zip(requests, aligner.align(list(requests.values())), strict=True))
        return [found[number].words if number in found else () for number in range(len(runs))]

    def _scores(self, proposed: Sequence[_New]) -> list[float]:
        """As the audit would score them."""
        cases = [
            Case(new.made.samples(self._corpus), new.made.utterance.text, new.made.utterance.language)
            for new in proposed
        ]
        found: list[float] = self._audited.scorer(measured(cases, self._listeners)).tolist() if cases else []
        return found

    def _take(self, action: Action, row: int, chosen: Sequence[tuple[_New, float]]) -> None:
        after = tuple(
            Version(
                new.made.utterance.id, new.made.utterance.text, new.made.end - new.made.start, score, new.made.start
            )
            for new, score in chosen
        )  # fmt: skip
        self._changes[row] = Change(row, action, self._before(row), after, self._audited.reasons.get(row, ()))
        self._replaced[row] = [new.made for new, _ in chosen]

    def _give_up(self, row: int) -> None:
        action = self._policy.otherwise
        self._changes[row] = Change(row, action, self._before(row), (), self._audited.reasons.get(row, ()))
        if action == "drop":
            self._replaced[row] = []

    def _before(self, row: int) -> Version:
        utterance = self._corpus.utterance(row)
        return Version(utterance.id, utterance.text, utterance.seconds, self._audited.scores.get(row))


def _long_enough(run: Sequence[int]) -> list[tuple[int, ...]]:
    """A run, if there is a boundary in it."""
    return [tuple(run)] if len(run) > 1 else []


def _parted(run: Sequence[int], bad: AbstractSet[int]) -> list[tuple[int, ...]]:
    """The parts of a run between the bad rows."""
    parts = (list(some) for is_bad, some in itertools.groupby(run, key=lambda row: row in bad) if not is_bad)
    return [found for part in parts for found in _long_enough(part)]


def _least_confidence(audited: AuditedCorpus, threshold: float) -> float:
    """Of words that are in the audio: nearly all utterances that are not flagged have surer ones."""
    weakest = [
        audited.signals[row][WEAKEST_WORDS]
        for row, score in audited.scores.items()
        if score < threshold and WEAKEST_WORDS in audited.signals[row]
    ]
    return 1 - float(np.quantile(weakest, _NEARLY_ALL)) if weakest else 0.0


def _words(utterance: Utterance) -> list[SpokenWord]:
    return spoken_words(utterance.text, language(utterance.language).unit)


def _without_times(utterance: Utterance) -> Utterance:
    """Times are wrong for another text, or for another part of the audio."""
    return replace(utterance, words=(), segments=())


def _blocks(rows: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    for first in range(0, len(rows), size):
        yield rows[first : first + size]
