"""What is proposed for flagged rows of a corpus: parts of clips, new boundaries, other numbers, each with its score as
the audit would measure it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

import numpy as np

from caspi.alignment.align import AlignedWord, AlignmentRequest
from caspi.audio import SAMPLE_RATE, Seconds
from caspi.audit.calibration import Scorer
from caspi.audit.faults import Case, texts_of_similar_length
from caspi.audit.pieces import found_parts, new_boundaries, with_numbers_as_heard
from caspi.audit.signals import Listeners, measured
from caspi.corpus.derived import NewUtterance
from caspi.corpus.store import Corpus
from caspi.corpus.utterance import Utterance
from caspi.language import language
from caspi.language.spoken_words import SpokenWord, spoken_words

FEWEST_RECOGNISERS = 2  # that must agree on a number: one may have heard wrongly
_MOVED: Seconds = 0.1  # a boundary that moves less stays
_MOST_NEIGHBOURS = 12  # clips joined to move their boundaries


@dataclass(frozen=True, slots=True)
class PartLimits:
    """Of parts of clips. confidence: least of their words; share: least of an utterance's words that its parts keep."""

    confidence: float
    seconds: Seconds
    words: int
    share: float


@dataclass(frozen=True, slots=True)
class Proposal:
    """An utterance in place of a row, or of a part of it, and its score."""

    row: int
    made: NewUtterance
    score: float


@dataclass(frozen=True, slots=True)
class Proposals:
    """Of the rows of a corpus. ids: of all of them; texts: in place of those of the corpus, by row."""

    corpus: Corpus
    listeners: Listeners
    scorer: Scorer
    limits: PartLimits
    ids: frozenset[str]
    texts: Mapping[int, str] | None = None

    def with_texts_of_others(self, rows: Sequence[int]) -> Proposals:
        """The same, with wrong texts: each of the rows has that of another, of similar length."""
        others = texts_of_similar_length([self.corpus.utterance(row).text for row in rows])
        return replace(self, texts={row: text for row, text in zip(rows, others, strict=True) if text})

    def cut(self, rows: Sequence[int]) -> dict[int, list[Proposal]]:
        """The parts of each clip whose words are there; none where that is the whole clip."""
        proposed = []
        limits = self.limits
        for row, words in zip(rows, self._words_of([(row,) for row in rows]), strict=True):
            utterance, samples = self._utterance(row), self.corpus.samples(row)
            parts = found_parts(words, samples, limits.confidence, limits.seconds, limits.words) if words else []
            if [part.text for part in parts] == [utterance.text] and parts[0].end - parts[0].start == utterance.seconds:
                continue
            names = [utterance.id] if len(parts) == 1 else self._new_ids(utterance.id, len(parts))
            for name, part in zip(names, parts, strict=True):
                made = replace(_without_times(utterance), id=name, text=part.text, previous="")
                proposed.append((row, NewUtterance(made, (row,), part.start, part.end)))
        return _by_row(self._scored(proposed))

    def _new_ids(self, identifier: str, count: int) -> list[str]:
        """Ids for the parts of an utterance that no other has."""
        marks = itertools.chain(["-"], (f"-part{n}-" for n in itertools.count(1)))
        return next(
            names
            for mark in marks
            if not self.ids.intersection(names := [f"{identifier}{mark}{n + 1}" for n in range(count)])
        )

    def is_enough(self, row: int, parts: Sequence[Proposal]) -> bool:
        """Whether parts keep enough of a row's words."""
        kept = sum(len(_words(part.made.utterance)) for part in parts)
        return kept > 0 and kept >= self.limits.share * len(_words(self._utterance(row)))

    def enough_below(self, row: int, parts: Sequence[Proposal]) -> float:
        """The smallest score up to which the parts of a row are enough; infinite if all are not."""
        order = sorted(parts, key=lambda one: one.score)
        return next((order[n].score for n in range(len(order)) if self.is_enough(row, order[: n + 1])), math.inf)

    def move_boundaries(self, runs: Sequence[Sequence[int]]) -> list[list[Proposal]]:
        """Of every run of neighbours, joined and cut again so that each has its own words: the clips of which a
        boundary moves."""
        proposed = [
            list(self._cut_again(run, words)) if words else []
            for run, words in zip(runs, self._words_of(runs), strict=True)
        ]
        scored = iter(self._scored([one for some in proposed for one in some]))
        return [[next(scored) for _ in some] for some in proposed]

    def runs(self, rows: Sequence[int], known: AbstractSet[int]) -> list[tuple[int, ...]]:
        """The rows with their neighbours of the same recording, as runs of two rows or more, all of them known."""
        found: list[tuple[int, ...]] = []
        run: list[int] = []
        near = {beside for row in rows for beside in (row - 1, row, row + 1)}
        for row in sorted(near & known):
            if run and (row != run[-1] + 1 or len(run) == _MOST_NEIGHBOURS or not self.follows(row)):
                found += _long_enough(run)
                run = []
            run.append(row)
        return found + _long_enough(run)

    def follows(self, row: int) -> bool:
        """Whether a row continues the recording of the row before it."""
        one, other = self.corpus.utterance(row - 1), self.corpus.utterance(row)
        return bool(one.group) and (one.group, one.source) == (other.group, other.source)

    def numbers(self, rows: Sequence[int]) -> dict[int, list[Proposal]]:
        """The numbers that all recognisers heard."""
        cases = [self._case(row) for row in rows]
        heard = [recogniser.heard(cases) for recogniser in self.listeners.recognisers]
        proposed = []
        for row, case, *said in zip(rows, cases, *heard, strict=True):
            texts = {with_numbers_as_heard(case.text, its.text, case.language) for its in said}
            text = texts.pop()
            if text is not None and not texts:
                utterance = self._utterance(row)
                made = replace(_without_times(utterance), text=text)
                proposed.append((row, NewUtterance(made, (row,), 0.0, utterance.seconds)))
        return _by_row(self._scored(proposed))

    def _utterance(self, row: int) -> Utterance:
        utterance = self.corpus.utterance(row)
        text = (self.texts or {}).get(row)
        return utterance if text is None else replace(utterance, text=text)

    def _case(self, row: int) -> Case:
        utterance = self._utterance(row)
        return Case(self.corpus.samples(row), utterance.text, utterance.language)

    def _cut_again(self, run: Sequence[int], words: Sequence[AlignedWord]) -> Iterator[tuple[int, NewUtterance]]:
        utterances = [self._utterance(row) for row in run]
        counts = [len(_words(utterance)) for utterance in utterances]
        if sum(counts) != len(words) or not all(counts):
            return
        joined = np.concatenate([self.corpus.samples(row) for row in run])
        before = np.cumsum([0.0, *(utterance.seconds for utterance in utterances)]).tolist()
        after = [0.0, *new_boundaries(counts, words, joined), len(joined) / SAMPLE_RATE]
        moved = [abs(one - other) > _MOVED for one, other in zip(before, after, strict=True)]
        for n, row in enumerate(run):
            if moved[n] or moved[n + 1]:
                yield row, NewUtterance(_without_times(utterances[n]), tuple(run), after[n], after[n + 1])

    def _words_of(self, runs: Sequence[Sequence[int]]) -> list[tuple[AlignedWord, ...]]:
        """The words of every run of clips, joined; none where they cannot be aligned."""
        aligner = self.listeners.aligner
        assert aligner is not None  # the caller has checked it
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

    def _scored(self, proposed: Sequence[tuple[int, NewUtterance]]) -> list[Proposal]:
        if not proposed:
            return []
        cases = [Case(new.samples(self.corpus), new.utterance.text, new.utterance.language) for _, new in proposed]
        scores = self.scorer(measured(cases, self.listeners)).tolist()
        return [Proposal(row, new, score) for (row, new), score in zip(proposed, scores, strict=True)]


def parted(run: Sequence[int], bad: AbstractSet[int]) -> list[tuple[int, ...]]:
    """The parts of a run between the bad rows, of two rows or more."""
    parts = (list(some) for is_bad, some in itertools.groupby(run, key=lambda row: row in bad) if not is_bad)
    return [found for part in parts for found in _long_enough(part)]


def _long_enough(run: Sequence[int]) -> list[tuple[int, ...]]:
    """A run, if there is a boundary in it."""
    return [tuple(run)] if len(run) > 1 else []


def _by_row(proposals: Sequence[Proposal]) -> dict[int, list[Proposal]]:
    return {row: list(some) for row, some in itertools.groupby(proposals, key=lambda one: one.row)}


def _words(utterance: Utterance) -> list[SpokenWord]:
    return spoken_words(utterance.text, language(utterance.language).unit)


def _without_times(utterance: Utterance) -> Utterance:
    """Times are wrong for another text, or for another part of the audio."""
    return replace(utterance, words=(), segments=())
