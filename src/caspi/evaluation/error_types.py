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
    letters, prefixes: (expected, recognised); a missing prefix is "". deleted, inserted: deleted and inserted words.
    """

    kinds: Counter[str] = field(default_factory=Counter)
    confused: Counter[tuple[str, str]] = field(default_factory=Counter)
    deleted: Counter[str] = field(default_factory=Counter)
    inserted: Counter[str] = field(default_factory=Counter)
    letters: Counter[tuple[str, str]] = field(default_factory=Counter)
    prefixes: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, expected: Sequence[str], said: Sequence[str], spoken: Language) -> None:
        """Adds one utterance: the words of texts that `fair` has normalised."""
        for step in align(expected, said):
            if step.kind == "replace":
                self.confused.update(zip(step.expected, step.said, strict=True))
            elif step.kind == "delete":
                self.deleted.update(step.expected)
            elif step.kind == "insert":
                self.inserted.update(step.said)
        for steps in regions(path(expected, said)):
            if steps[0].kind == "equal":
                continue
            missing = [word for step in steps for word in step.expected]
            recognised = [word for step in steps for word in step.said]
            for words in _boundaries(missing, recognised):
                if words is None:
                    self.kinds["word boundary"] += 1
                else:
                    self._replaced(*words, spoken)

    def _replaced(self, expected: list[str], said: list[str], spoken: Language) -> None:
        for step in align(expected, said):
            for one, other in zip(step.expected, step.said, strict=False):
                self._word(one, other, spoken)
            self.kinds["left out"] += max(0, len(step.expected) - len(step.said))
            self.kinds["put in"] += max(0, len(step.said) - len(step.expected))

    def _word(self, expected: str, said: str, spoken: Language) -> None:
        letters = [
            pair
            for step in path(expected, said)
            if step.kind == "replace"
            for pair in zip(step.expected, step.said, strict=True)
        ]
        similar = Levenshtein.normalized_distance(expected, said) <= 0.5
        prefixes = _prefixes(expected, said, spoken.ears.prefixes)
        spelling = spoken.relaxations.get("spelling", str)
        if spelling(expected) == spelling(said):
            self.kinds["spelling"] += 1
        elif prefixes is not None:
            self.kinds["prefix"] += 1
            self.prefixes[prefixes] += 1
        elif len(expected) == len(said) and all(_alike(pair, spoken) for pair in letters):
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


def _boundaries(expected: list[str], said: list[str]) -> Iterator[tuple[list[str], list[str]] | None]:
    """Splits an error region, in order: None for every span that differs only in its word boundaries, and the words
    between such spans."""
    spans = _joined(said)
    slack = abs(len(expected) - len(said)) + _LONGEST_JOIN
    place = done = heard = 0
    while place < len(expected):
        span = _same_letters(expected, place, spans, heard, slack)
        if span is None:
            place += 1
            continue
        expected_words, first, said_words = span
        yield expected[done:place], said[heard:first]
        yield None
        done = place = place + expected_words
        heard = first + said_words
    yield expected[done:], said[heard:]


def _joined(words: list[str]) -> dict[str, list[tuple[int, int]]]:
    """Joined words -> start index and number of the words."""
    found: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
    for first in range(len(words)):
        for count in range(1, min(_LONGEST_JOIN, len(words) - first) + 1):
            found["".join(words[first : first + count])].append((first, count))
    return found


def _same_letters(
    expected: list[str], place: int, spans: dict[str, list[tuple[int, int]]], heard: int, slack: int
) -> tuple[int, int, int] | None:
    """Reference words at a position that, joined, equal a different number of joined hypothesis words: the number of
    reference words, the start of the hypothesis words, and their number. The start is not before `heard`, and not
    further away than words can shift."""
    for expected_words in range(1, min(_LONGEST_JOIN, len(expected) - place) + 1):
        for first, said_words in spans.get("".join(expected[place : place + expected_words]), ()):
            if expected_words != said_words and first >= heard and abs(first - place) <= slack:
                return expected_words, first, said_words
    return None


def _prefixes(expected: str, said: str, letters: str) -> tuple[str, str] | None:
    """The prefixes of two words that share the same rest of two letters or more; None if they do not."""
    same = 0
    while same < min(len(expected), len(said)) and expected[-1 - same] == said[-1 - same]:
        same += 1
    one, other = expected[: len(expected) - same], said[: len(said) - same]
    if same < 2 or max(len(one), len(other)) > 2 or not all(letter in letters for letter in one + other):
        return None
    return one, other


def _alike(pair: tuple[str, str], spoken: Language) -> bool:
    return any(pair[0] in group and pair[1] in group for group in spoken.ears.alike)


def hallucination_signs(pair: TranscriptPair, expected: str, said: str) -> list[str]:
    """Signs that a hypothesis is a hallucination: `loop`, `long`, `over silence`, `cut off`, `leaked tags` (of the
    model's own output). The texts are normalised by `fair`."""
    found = []
    if _LEAKED.search(pair.hypothesis):
        found.append("leaked tags")
    if loops(said) and not loops(expected):
        found.append("loop")
    too_many = 2 * len(expected.split()) + 5
    if pair.seconds is not None:
        too_many = min(too_many, int(_WORDS_A_SECOND * pair.seconds) + 2)
    if len(said.split()) > too_many:
        found.append("long")
    if said and (not expected or (pair.silence is not None and pair.silence > 0.98)):
        found.append("over silence")
    if pair.truncated:
        found.append("cut off")
    return found
