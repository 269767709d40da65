"""How a hypothesis differs from its reference: counts, and step by step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rapidfuzz.distance import Levenshtein


@dataclass(frozen=True, slots=True)
class Edits:
    """Counts of one utterance, in words or in characters."""

    hits: int
    substitutions: int
    deletions: int
    insertions: int

    @property
    def errors(self) -> int:
        return self.substitutions + self.deletions + self.insertions

    @property
    def length(self) -> int:
        """Units of the reference."""
        return self.hits + self.substitutions + self.deletions

    @property
    def said(self) -> int:
        """Units of the hypothesis."""
        return self.hits + self.substitutions + self.insertions

    @property
    def rate(self) -> float:
        """Errors a reference unit; insertions against an empty reference count one each."""
        return self.errors / max(1, self.length)


class Step(NamedTuple):
    """A stretch of reference words and what was heard for them; one of the two may be empty. kind: equal, replace,
    delete or insert."""

    kind: str
    expected: tuple[str, ...]
    said: tuple[str, ...]


class Words(dict[str, str]):
    """A character for every word it is asked for: texts become strings, which are compared ten times faster than
    lists of words."""

    def __missing__(self, word: str) -> str:
        self[word] = chr(len(self) + 1)
        return self[word]

    def encode(self, text: str) -> str:
        """The words of a normalised text, a character each."""
        return "".join(map(self.__getitem__, text.split()))


def count(expected: str, said: str) -> Edits:
    """Edits of a shortest path from one string to the other, character by character: rapidfuzz's, which is the one
    that jiwer counts."""
    if expected == said:
        return Edits(len(expected), 0, 0, 0)
    kinds = [step[0] for step in Levenshtein.editops(expected, said).as_list()]
    substitutions, deletions = kinds.count("replace"), kinds.count("delete")
    return Edits(len(expected) - substitutions - deletions, substitutions, deletions, kinds.count("insert"))


def align(expected: Sequence[str], said: Sequence[str]) -> list[Step]:
    """The same path over words (or letters), neighbouring steps of one kind in one."""
    return [
        Step(step.tag, tuple(expected[step.src_start : step.src_end]), tuple(said[step.dest_start : step.dest_end]))
        for step in Levenshtein.opcodes(list(expected), list(said))
    ]
