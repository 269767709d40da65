"""Measures the sampled utterances of a corpus, as they are and with faults made on purpose; resumes from a file."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from caspi.atomic_output import read_whole_lines
from caspi.audit.faults import FAULTS, Case, Surroundings, spoiled, texts_of_similar_length
from caspi.audit.sampling import SampledRow
from caspi.audit.signals import Listeners, Signals, measured
from caspi.corpus.read_ahead import read_ahead
from caspi.corpus.store import Corpus
from caspi.progress import Progress
from caspi.randomness import seeded

_ENOUGH_FAULTS = 100  # of each kind
_MOST_FAULTS = 4  # made from one utterance


@dataclass(frozen=True, slots=True)
class MadeFault:
    """The signals of an utterance with a fault. number: of the utterance in the sample."""

    kind: str
    number: int
    signals: Signals


def measurements(
    corpus: Corpus, rows: Sequence[SampledRow], listeners: Listeners, cache: Path, seed: int,
    faults_each: int | None = None,
) -> tuple[list[Signals], list[MadeFault]]:  # fmt: skip
    """The signals of every row's own transcript, and of those with faults. cache: a file that signals are appended to;
    what it holds is not measured again. faults_each: made from every utterance; None: enough of each kind in all."""
    known = {(line["row"], kind): signals for line in read_whole_lines(cache) for kind, signals in line["of"].items()}
    cases_of = _Cases(corpus, rows, seed, faults_each)
    corpus.find_audio()  # before threads read it
    size = listeners.at_once
    with cache.open("a", encoding="utf-8") as lines, Progress("audit", unit="utterances", total=len(rows)) as progress:
        left = [number for number, one in enumerate(rows) if (one.row, "") not in known]
        progress.advance(len(rows) - len(left))
        read = zip(left, read_ahead(cases_of, left, size), strict=True)  # the next block, while this one is measured
        while block := list(itertools.islice(read, size)):
            cases = [(rows[number].row, case) for number, some in block for case in some]
            found = measured([case for _, case in cases], listeners)
            of_row: dict[int, dict[str, Signals]] = {}
            for (row, case), signals in zip(cases, found, strict=True):
                known[row, case.fault] = of_row.setdefault(row, {})[case.fault] = signals
            for row, of in of_row.items():  # a row and its faults are there together, or not at all
                lines.write(json.dumps({"row": row, "of": of}) + "\n")
            lines.flush()
            progress.advance(len(block))
    number_of = {one.row: number for number, one in enumerate(rows)}
    made = [MadeFault(kind, number_of[row], signals) for (row, kind), signals in known.items() if kind]
    return [known[one.row, ""] for one in rows], made


class _Cases:
    """The cases of a sampled row: its own text, and some faults, so that all kinds are about equally often. Of many
    rows, some have no fault, evenly spread."""

    def __init__(self, corpus: Corpus, rows: Sequence[SampledRow], seed: int, faults_each: int | None) -> None:
        self._corpus, self._rows, self._seed = corpus, rows, seed
        enough = min(1.0, _ENOUGH_FAULTS * len(FAULTS) / max(1, len(rows) * _MOST_FAULTS)) * _MOST_FAULTS
        self._faults_each = enough if faults_each is None else float(faults_each)
        self._utterances = [corpus.utterance(one.row) for one in rows]
        self._others = texts_of_similar_length([utterance.text for utterance in self._utterances])

    def __call__(self, number: int) -> list[Case]:
        utterance, row = self._utterances[number], self._rows[number].row
        own = Case(self._corpus.samples(row), utterance.text, utterance.language)
        first, last = (math.ceil(n * self._faults_each) for n in (number, number + 1))
        return [own, *self._faulty(own, number, first, last - first)] if last > first else [own]

    def _faulty(self, own: Case, number: int, first: int, count: int) -> list[Case]:
        """Up to `count` faults, from the kind of number `first` on."""
        draw = seeded(self._seed, self._rows[number].row)
        around = Surroundings(
            self._others[number], self._following(number), self._corpus.samples(self._rows[number - 1].row)
        )
        kinds = list(FAULTS)
        found: list[Case] = []
        for step in range(len(kinds)):
            if len(found) == count:
                break
            case = spoiled(own, kinds[(first + step) % len(kinds)], around, draw)
            if case is not None:
                found.append(case)
        return found

    def _following(self, number: int) -> str:
        row, utterance = self._rows[number].row + 1, self._utterances[number]
        if row >= len(self._corpus) or not utterance.group:
            return ""
        following = self._corpus.utterance(row)
        return following.text if following.group == utterance.group else ""
