"""Kinds of errors: letters that sound alike, prefixes, word boundaries, spelling; and signs of hallucination."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from rapidfuzz.distance import Levenshtein

from caspi.evaluation.pairs import TranscriptPair
from caspi.evaluation.results import ErrorTable
from caspi.inference.loops import loops
from caspi.language import Language
from caspi.scoring.edits import align, path, regions

_LONGEST_JOIN = 3  # maximum number of words that one word may be recognised as
_MOST = 20  # rows of a table
_WORDS_A_SECOND = 6.0  # faster speech over a whole utterance is not possible
_LEAKED = re.compile(r"<asr_text>|<\|[^<>|]*\|>|\blanguage [A-Z][a-z]+ ?<")


@dataclass(slots=True)
class ErrorTypes:
    """Counts over a corpus. kinds: the first kind that applies to each error region or substituted word. confused,
    letters, prefixes: (reference, recognised); a missing prefix is "". deleted, inserted: deleted and inserted words.
    """

    kinds: Counter[str] = field(default_factory=Counter)
    confused: Counter[tuple[str, str]] = field(default_factory=Counter)
    deleted: Counter[str] = field(default_factory=Counter)
    inserted: Counter[str] = field(default_factory=Counter)
    letters: Counter[tuple[str, str]] = field(default_factory=Counter)
    prefixes: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, reference: Sequence[str], hypothesis: Sequence[str], spoken: Language) -> None:
        """Adds one utterance: the words of texts that `fair` has normalised."""
        for step in align(reference, hypothesis):
            if step.kind == "replace":
                self.confused.update(zip(step.reference, step.hypothesis, strict=True))
            elif step.kind == "delete":
                self.deleted.update(step.reference)
            elif step.kind == "insert":
                self.inserted.update(step.hypothesis)
        for steps in regions(path(reference, hypothesis)):
            if steps[0].kind == "equal":
                continue
            missing = [word for step in steps for word in step.reference]
            recognised = [word for step in steps for word in step.hypothesis]
            for words in _boundaries(missing, recognised):
                if words is None:
                    self.kinds["word boundary"] += 1
                else:
                    self._replaced(*words, spoken)

    def _replaced(self, reference: list[str], hypothesis: list[str], spoken: Language) -> None:
        for step in align(reference, hypothesis):
            for one, other in zip(step.reference, step.hypothesis, strict=False):
                self._word(one, other, spoken)
            self.kinds["left out"] += max(0, len(step.reference) - len(step.hypothesis))
            self.kinds["put in"] += max(0, len(step.hypothesis) - len(step.reference))

    def _word(self, reference: str, hypothesis: str, spoken: Language) -> None:
        letters = [
            pair
            for step in path(reference, hypothesis)
            if step.kind == "replace"
            for pair in zip(step.reference, step.hypothesis, strict=True)
        ]
        similar = Levenshtein.normalized_distance(reference, hypothesis) <= 0.5
        prefixes = _prefixes(reference, hypothesis, spoken.confusable_letters.prefixes)
        spelling = spoken.relaxations.get("spelling", str)
        if spelling(reference) == spelling(hypothesis):
            self.kinds["spelling"] += 1
        elif prefixes is not None:
            self.kinds["prefix"] += 1
            self.prefixes[prefixes] += 1
        elif len(reference) == len(hypothesis) and all(_alike(pair, spoken) for pair in letters):
            self.kinds["letters that sound alike"] += 1
        elif similar:
            self.kinds["similar word"] += 1
        else:
            self.kinds["another word"] += 1
        if similar:  # for words with nothing in common, letter confusions are meaningless
            self.letters.update(letters)

    def table(self) -> ErrorTable:
        """The counts of all kinds, and the most frequent rows of the others."""
        return ErrorTable(
            kinds=dict(self.kinds.most_common()),
            confused=[(*pair, count) for pair, count in self.confused.most_common(_MOST)],
            deleted=self.deleted.most_common(_MOST),
            inserted=self.inserted.most_common(_MOST),
            letters=[(*pair, count) for pair, count in self.letters.most_common(_MOST)],
            prefixes=[(*pair, count) for pair, count in self.prefixes.most_common(_MOST)],
        )


def _boundaries(reference: list[str], hypothesis: list[str]) -> Iterator[tuple[list[str], list[str]] | None]:
    """Splits an error region, in order: None for every span that differs only in its word boundaries, and the words
    between such spans."""
    spans = _joined(hypothesis)
    slack = abs(len(reference) - len(hypothesis)) + _LONGEST_JOIN
    place = done = heard = 0
    while place < len(reference):
        span = _same_letters(reference, place, spans, heard, slack)
        if span is None:
            place += 1
            continue
        reference_words, first, hypothesis_words = span
        yield reference[done:place], hypothesis[heard:first]
        yield None
        done = place = place + reference_words
        heard = first + hypothesis_words
    yield reference[done:], hypothesis[heard:]


def _joined(words: list[str]) -> dict[str, list[tuple[int, int]]]:
    """Joined words -> start index and number of the words."""
    found: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
    for first in range(len(words)):
        for count in range(1, min(_LONGEST_JOIN, len(words) - first) + 1):
            found["".join(words[first : first + count])].append((first, count))
    return found


def _same_letters(
    reference: list[str], place: int, spans: dict[str, list[tuple[int, int]]], heard: int, slack: int
) -> tuple[int, int, int] | None:
    """Reference words at a position that, joined, equal a different number of joined hypothesis words: the number of
    reference words, the start of the hypothesis words, and their number. The start is not before `heard`, and not
    further away than words can shift."""
    for reference_words in range(1, min(_LONGEST_JOIN, len(reference) - place) + 1):
        for first, hypothesis_words in spans.get("".join(reference[place : place + reference_words]), ()):
            if reference_words != hypothesis_words and first >= heard and abs(first - place) <= slack:
                return reference_words, first, hypothesis_words
    return None


def _prefixes(reference: str, hypothesis: str, letters: str) -> tuple[str, str] | None:
    """The prefixes of two words that share the same rest of two letters or more; None if they do not."""
    same = 0
    while same < min(len(reference), len(hypothesis)) and reference[-1 - same] == hypothesis[-1 - same]:
        same += 1
    one, other = reference[: len(reference) - same], hypothesis[: len(hypothesis) - same]
    if same < 2 or max(len(one), len(other)) > 2 or not all(letter in letters for letter in one + other):
        return None
    return one, other


def _alike(pair: tuple[str, str], spoken: Language) -> bool:
    return any(pair[0] in group and pair[1] in group for group in spoken.confusable_letters.alike)


def hallucination_signs(pair: TranscriptPair, reference: str, hypothesis: str) -> list[str]:
    """Signs that a hypothesis is a hallucination: `loop`, `long`, `over silence`, `cut off`, `leaked tags` (of the
    model's own output). The texts are normalised by `fair`."""
    found = []
    if _LEAKED.search(pair.hypothesis):
        found.append("leaked tags")
    if loops(hypothesis) and not loops(reference):
        found.append("loop")
    too_many = 2 * len(reference.split()) + 5
    if pair.seconds is not None:
        too_many = min(too_many, int(_WORDS_A_SECOND * pair.seconds) + 2)
    if len(hypothesis.split()) > too_many:
        found.append("long")
    if hypothesis and (not reference or (pair.silence is not None and pair.silence > 0.98)):
        found.append("over silence")
    if pair.truncated:
        found.append("cut off")
    return found
