"""How hypotheses differ from their references: counts over a corpus, and alignments."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from rapidfuzz import process
from rapidfuzz.distance import Levenshtein

_AT_ONCE = 10_000  # pairs: so that they have fewer distinct words than there are Unicode characters
_MOST_CELLS = 20_000  # word comparisons in an error region; more occur if an hour was transcribed in another language


@dataclass(frozen=True, slots=True)
class Counts:
    """Edit counts of n utterances, each an int64 array [n]: words, then characters."""

    hits: np.ndarray
    substitutions: np.ndarray
    deletions: np.ndarray
    insertions: np.ndarray
    character_errors: np.ndarray
    characters: np.ndarray

    @property
    def errors(self) -> np.ndarray:
        return self.substitutions + self.deletions + self.insertions

    @property
    def words(self) -> np.ndarray:
        """Number of reference words."""
        return self.hits + self.substitutions + self.deletions

    @property
    def said(self) -> np.ndarray:
        """Number of hypothesis words."""
        return self.hits + self.substitutions + self.insertions

    def of(self, places: Sequence[int]) -> Counts:
        """Counts of a subset of the utterances."""
        return Counts(*(getattr(self, column.name)[places] for column in fields(self)))


class EditSpan(NamedTuple):
    """A span of reference words and the hypothesis words aligned with it; one of the two may be empty. kind: equal,
    replace, delete or insert."""

    kind: str
    expected: tuple[str, ...]
    said: tuple[str, ...]


def encode(texts: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """Encodes texts with single spaces between words: every word becomes one character. Also returns the number of
    words of each text. Comparing strings is ten times faster than comparing lists of words. Vectorised over words."""
    data = np.frombuffer(("\n".join(texts) + "\n").encode(), np.uint8).copy()
    text_ends = np.flatnonzero(data == ord("\n"))
    data[text_ends] = ord(" ")
    word_ends = np.flatnonzero(data == ord(" ")) + 1
    offsets = pa.py_buffer(np.append(np.int32(0), word_ends.astype(np.int32)))
    words = pa.StringArray.from_buffers(len(word_ends), offsets, pa.py_buffer(data)).dictionary_encode()
    codes = words.indices.to_numpy().astype("<u4") + 1
    coded = codes.tobytes().decode("utf-32-le", "surrogatepass")
    ends = np.searchsorted(word_ends, text_ends + 1, side="right")
    empty = np.diff(text_ends, prepend=-1) == 1  # an empty text counts as one empty word here
    starts = np.append(0, ends[:-1]) + empty
    return [coded[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)], ends - starts


def count(expected: Sequence[str], said: Sequence[str]) -> Counts:
    """Edits of each pair of normalised texts: single spaces between words, none around them. The alignment is that of
    rapidfuzz, which jiwer counts too."""
    columns = np.zeros((6, len(expected)), np.int64)
    columns[5] = [len(text) for text in expected]
    differ: list[int] = []
    same: list[int] = []
    for place, (one, other) in enumerate(zip(expected, said, strict=True)):
        (same if one == other else differ).append(place)
    columns[0, same] = [expected[place].count(" ") + (expected[place] != "") for place in same]
    for start in range(0, len(differ), _AT_ONCE):
        block = differ[start : start + _AT_ONCE]
        columns[:5, block] = _count([expected[place] for place in block], [said[place] for place in block])
    return Counts(*columns)


def _count(expected: list[str], said: list[str]) -> np.ndarray:
    """[5, n]: hits, substitutions, deletions and insertions of words, errors of characters."""
    size = len(expected)
    coded, words = encode(expected + said)
    one, other, lengths, heard = coded[:size], coded[size:], words[:size], words[size:]
    distance = _distances(one, other)
    # d edits between n and m words contain d - |n - m| - 2k substitutions for some k. If only one k is possible, no
    # alignment is needed.
    substitutions = distance - np.abs(lengths - heard)
    for place in np.flatnonzero((substitutions > 1) & (lengths > 0) & (heard > 0)).tolist():
        kinds = [step[0] for step in Levenshtein.editops(one[place], other[place]).as_list()]
        substitutions[place] = kinds.count("replace")
    deletions = (distance - substitutions + lengths - heard) // 2
    insertions = distance - substitutions - deletions
    hits = lengths - substitutions - deletions
    return np.stack([hits, substitutions, deletions, insertions, _distances(expected, said)])


def _distances(one: Sequence[str], other: Sequence[str]) -> np.ndarray:
    """int64 [n]."""
    return process.cpdist(one, other, scorer=Levenshtein.distance, dtype=np.int64)


def path(expected: Sequence[str], said: Sequence[str]) -> list[EditSpan]:
    """The same alignment over letters (or words); neighbouring steps of one kind are merged."""
    return [
        EditSpan(step.tag, tuple(expected[step.src_start : step.src_end]), tuple(said[step.dest_start : step.dest_end]))
        for step in Levenshtein.opcodes(list(expected), list(said))
    ]


def align(expected: Sequence[str], said: Sequence[str]) -> list[EditSpan]:
    """Aligns words with the minimum number of edits. Among the shortest alignments, takes one in which substituted
    words are similar. Neighbouring steps of one kind are merged."""
    steps = [step for region in regions(path(expected, said)) for step in _by_similarity(region)]
    kinds = [step.kind for step in steps for _ in step.expected or step.said]
    return list(_grouped(kinds, (w for step in steps for w in step.expected), (w for step in steps for w in step.said)))


def regions(steps: Sequence[EditSpan]) -> Iterator[list[EditSpan]]:
    """Groups of steps, in order: adjacent error steps together, each equal step alone."""
    for is_equal, found in itertools.groupby(steps, key=lambda step: step.kind == "equal"):
        if is_equal:
            yield from ([step] for step in found)
        else:
            yield list(found)


def _by_similarity(region: list[EditSpan]) -> list[EditSpan]:
    """Realigns an error region with the minimum number of edits, so that substituted words are most similar. A word
    that both sides have may become correct."""
    expected = [word for step in region for word in step.expected]
    said = [word for step in region for word in step.said]
    if min(len(expected), len(said)) == 0 or len(expected) * len(said) > _MOST_CELLS:
        return region
    unlike = process.cdist(expected, said, scorer=Levenshtein.normalized_distance).tolist()
    edit = float(len(expected) + len(said) + 1)  # more than the sum of all dissimilarities
    costs = [[column * edit for column in range(len(said) + 1)]]
    for row, distances in enumerate(unlike, 1):
        above, here = costs[-1], [row * edit]
        for column, distance in enumerate(distances, 1):
            replaced = above[column - 1] + (edit + distance if distance else 0.0)
            here.append(min(replaced, above[column] + edit, here[-1] + edit))
        costs.append(here)
    kinds: list[str] = []
    row, column = len(expected), len(said)
    while row or column:
        distance = unlike[row - 1][column - 1] if row and column else 0.0
        step = edit + distance if distance else 0.0
        if row and column and costs[row][column] == costs[row - 1][column - 1] + step:
            kinds.append("replace" if distance else "equal")
            row, column = row - 1, column - 1
        elif row and costs[row][column] == costs[row - 1][column] + edit:
            kinds.append("delete")
            row -= 1
        else:
            kinds.append("insert")
            column -= 1
    return list(_grouped(kinds[::-1], iter(expected), iter(said)))


def _grouped(kinds: list[str], expected: Iterator[str], said: Iterator[str]) -> Iterator[EditSpan]:
    for kind, found in itertools.groupby(kinds):
        count = len(list(found))
        ours = () if kind == "insert" else tuple(itertools.islice(expected, count))
        theirs = () if kind == "delete" else tuple(itertools.islice(said, count))
        yield EditSpan(kind, ours, theirs)
