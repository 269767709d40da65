"""Joins the texts of two windows that share a second of speech: no word is lost at the edge, and none is doubled."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from rapidfuzz import fuzz

from caspi.audio import Seconds

_WORDS_PER_SECOND = 6  # of fast speech
_SIMILAR = 50.0  # percent: below it the two ends are not the same words


def seam(before: Sequence[str], after: Sequence[str], shared: Seconds) -> tuple[int, int]:
    """(how many words of the first to keep, how many of the second to leave out), where the end of the first and the
    beginning of the second are of the same `shared` seconds.

    The last word of the first may be cut off, and so may the first word of the second: both give way to what the other
    has. Where no word is the same in both, the most similar ends are taken for the same words; if none are similar,
    nothing is left out.
    """
    most = round(shared * _WORDS_PER_SECOND) + 1
    end, start = list(map(_plain, before[-most:])), list(map(_plain, after[:most]))
    match = difflib.SequenceMatcher(None, end, start, autojunk=False).find_longest_match()
    if match.size:
        return len(before) - len(end) + match.a + match.size, match.b + match.size
    lengths = range(1, min(len(end), len(start)) + 1)
    likeness = {count: fuzz.ratio(" ".join(end[-count:]), " ".join(start[:count])) for count in lengths}
    best = max(likeness, key=lambda count: likeness[count], default=0)
    return len(before), best if best and likeness[best] >= _SIMILAR else 0


def _plain(word: str) -> str:
    return "".join(letter for letter in word.casefold() if letter.isalnum()) or word
