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

_BLOCK_SIZE = 10_000  # pairs: so that they have fewer distinct words than there are Unicode characters
_MAX_CELLS = 20_000  # word comparisons in an error region; more occur if an hour was transcribed in another language


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
    def hypothesis_words(self) -> np.ndarray:
        """Number of hypothesis words."""
        return self.hits + self.substitutions + self.insertions

    def of(self, indices: Sequence[int]) -> Counts:
        """Counts of a subset of the utterances."""
        return Counts(*(getattr(self, column.name)[indices] for column in fields(self)))


class EditSpan(NamedTuple):
    """A span of reference words and the hypothesis words aligned with it; one of the two may be empty. kind: equal,
    replace, delete or insert."""

    kind: str
    reference: tuple[str, ...]
    hypothesis: tuple[str, ...]


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
    encoded = codes.tobytes().decode("utf-32-le", "surrogatepass")
    ends = np.searchsorted(word_ends, text_ends + 1, side="right")
    empty = np.diff(text_ends, prepend=-1) == 1  # an empty text counts as one empty word here
    starts = np.append(0, ends[:-1]) + empty
    return [encoded[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)], ends - starts


def count(references: Sequence[str], hypotheses: Sequence[str]) -> Counts:
    """Edits of each pair of normalised texts: single spaces between words, none around them. The alignment is that of
    rapidfuzz, which jiwer counts too."""
    columns = np.zeros((6, len(references)), np.int64)
    columns[5] = [len(text) for text in references]
    different: list[int] = []
    same: list[int] = []
    for index, (reference, hypothesis) in enumerate(zip(references, hypotheses, strict=True)):
        (same if reference == hypothesis else different).append(index)
    columns[0, same] = [references[index].count(" ") + (references[index] != "") for index in same]
    for start in range(0, len(different), _BLOCK_SIZE):
        block = different[start : start + _BLOCK_SIZE]
        columns[:5, block] = _count([references[index] for index in block], [hypotheses[index] for index in block])
    return Counts(*columns)


def _count(references: list[str], hypotheses: list[str]) -> np.ndarray:
    """[5, n]: hits, substitutions, deletions and insertions of words, errors of characters."""
    size = len(references)
    encoded, words = encode(references + hypotheses)
    coded_references, coded_hypotheses, reference_lengths, hypothesis_lengths = (
        encoded[:size],
        encoded[size:],
        words[:size],
        words[size:],
    )
    distance = _distances(coded_references, coded_hypotheses)
    # d edits between n and m words contain d - |n - m| - 2k substitutions for some k. If only one k is possible, no
    # alignment is needed.
    substitutions = distance - np.abs(reference_lengths - hypothesis_lengths)
    for index in np.flatnonzero((substitutions > 1) & (reference_lengths > 0) & (hypothesis_lengths > 0)).tolist():
        kinds = [step[0] for step in Levenshtein.editops(coded_references[index], coded_hypotheses[index]).as_list()]
        substitutions[index] = kinds.count("replace")
    deletions = (distance - substitutions + reference_lengths - hypothesis_lengths) // 2
    insertions = distance - substitutions - deletions
    hits = reference_lengths - substitutions - deletions
    return np.stack([hits, substitutions, deletions, insertions, _distances(references, hypotheses)])


def _distances(references: Sequence[str], hypotheses: Sequence[str]) -> np.ndarray:
    """int64 [n]: edit distances of pairs."""
    return process.cpdist(references, hypotheses, scorer=Levenshtein.distance, dtype=np.int64)


def path(reference: Sequence[str], hypothesis: Sequence[str]) -> list[EditSpan]:
    """Aligns letters (or words) with the minimum number of edits, as `count` does. Neighbouring steps of one kind are
    merged."""
    return [
        EditSpan(
            step.tag,
            tuple(reference[step.src_start : step.src_end]),
            tuple(hypothesis[step.dest_start : step.dest_end]),
        )
        for step in Levenshtein.opcodes(list(reference), list(hypothesis))
    ]


def align(reference: Sequence[str], hypothesis: Sequence[str]) -> list[EditSpan]:
    """Aligns words with the minimum number of edits. Among the shortest alignments, takes one in which substituted
    words are similar. Neighbouring steps of one kind are merged."""
    steps = [step for region in regions(path(reference, hypothesis)) for step in _by_similarity(region)]
    kinds = [step.kind for step in steps for _ in step.reference or step.hypothesis]
    return list(
        _grouped(kinds, (w for step in steps for w in step.reference), (w for step in steps for w in step.hypothesis))
    )


def regions(steps: Sequence[EditSpan]) -> Iterator[list[EditSpan]]:
    """Groups of steps, in order: adjacent error steps together, each equal step alone."""
    for is_equal, group in itertools.groupby(steps, key=lambda step: step.kind == "equal"):
        if is_equal:
            yield from ([step] for step in group)
        else:
            yield list(group)


def _by_similarity(region: list[EditSpan]) -> list[EditSpan]:
    """Realigns an error region with the minimum number of edits, so that substituted words are most similar. A word
    on both sides may become correct."""
    reference = [word for step in region for word in step.reference]
    hypothesis = [word for step in region for word in step.hypothesis]
    if min(len(reference), len(hypothesis)) == 0 or len(reference) * len(hypothesis) > _MAX_CELLS:
        return region
    dissimilarities = process.cdist(reference, hypothesis, scorer=Levenshtein.normalized_distance).tolist()
    edit = float(len(reference) + len(hypothesis) + 1)  # more than the sum of all dissimilarities
    costs = [[column * edit for column in range(len(hypothesis) + 1)]]
    for row, distances in enumerate(dissimilarities, 1):
        previous_row, current_row = costs[-1], [row * edit]
        for column, distance in enumerate(distances, 1):
            replaced = previous_row[column - 1] + (edit + distance if distance else 0.0)
            current_row.append(min(replaced, previous_row[column] + edit, current_row[-1] + edit))
        costs.append(current_row)
    kinds: list[str] = []
    row, column = len(reference), len(hypothesis)
    while row or column:
        distance = dissimilarities[row - 1][column - 1] if row and column else 0.0
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
    return list(_grouped(kinds[::-1], iter(reference), iter(hypothesis)))


def _grouped(kinds: list[str], reference: Iterator[str], hypothesis: Iterator[str]) -> Iterator[EditSpan]:
    for kind, group in itertools.groupby(kinds):
        count = len(list(group))
        reference_words = () if kind == "insert" else tuple(itertools.islice(reference, count))
        hypothesis_words = () if kind == "delete" else tuple(itertools.islice(hypothesis, count))
        yield EditSpan(kind, reference_words, hypothesis_words)
