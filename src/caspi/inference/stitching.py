"""Joins the texts of two windows that share a second of speech: no word is lost at the edge, and none is doubled."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rapidfuzz import fuzz

_SAME = 60.0  # percent of likeness: below it two words are not forms of the same one
_UNMATCHED = 0.6  # what a word costs that the other text does not have, as a share of a word that both have


def seam(before: Sequence[str], after: Sequence[str], shared_words: float) -> tuple[int, int]:
    """(how many words of the first to keep, how many of the second to leave out), where the end of the first and the
    beginning of the second are of the same seconds, in which about `shared_words` words are said.

    Of all ways to lay the two ends over each other, that in which most words are alike, where the same ones count far
    more, and fewest stand alone. The last word of the first may be cut off, and so may the first word of the second:
    both give way to what the other has. If no word is alike, nothing is left out.
    """
    most = math.ceil(1.5 * shared_words) + 1
    end, start = list(map(_plain, before[-most:])), list(map(_plain, after[:most]))
    best, kept, left_out = 0.0, len(before), 0
    for a in range(len(end)):
        for b in range(len(start)):
            size = _run(end[a:], start[b:])
            # Alone stand the words of the first after the run, and those of the second before it.
            cost = _UNMATCHED * (len(end) - a - size + b)
            gain = sum((fuzz.ratio(end[a + n], start[b + n]) / 100) ** 3 for n in range(size)) - cost
            if size and gain > best:
                last_differs = a + size == len(end) and end[-1] != start[b + size - 1]
                own = size - last_differs  # what is cut off at the end is whole in the other
                best, kept, left_out = gain, len(before) - len(end) + a + own, b + own
    return kept, left_out


def _run(end: Sequence[str], start: Sequence[str]) -> int:
    """How many words at the start of both are alike."""
    size = 0
    while size < min(len(end), len(start)) and fuzz.ratio(end[size], start[size]) >= _SAME:
        size += 1
    return size


def _plain(word: str) -> str:
    return "".join(letter for letter in word.casefold() if letter.isalnum()) or word
