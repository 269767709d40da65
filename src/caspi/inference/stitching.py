"""Joins the texts of two windows that share a second of speech: no word is lost at the edge, and none is doubled."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from rapidfuzz import fuzz

from caspi.audio import SAMPLE_RATE, Seconds
from caspi.inference.transcripts import HeardWindow

_SAME = 60.0  # percent of likeness: below it two words are not forms of the same one
_UNMATCHED = 0.6  # what a word costs that the other text does not have, as a share of a word that both have


class HeardInOrder:
    """The windows of one recording: given as they are done, taken in their order. A window that continues is taken with
    the next one, so that the words which both have are in one of them."""

    def __init__(self) -> None:
        self.expected = 0
        self._heard: dict[int, HeardWindow] = {}
        self._taken = 0
        self._ended = False

    def expect(self) -> int:
        """The number of the next window of the recording."""
        self.expected += 1
        return self.expected - 1

    def put(self, number: int, heard: HeardWindow) -> None:
        """The text of a window."""
        self._heard[number] = heard

    def end(self) -> None:
        """There are no more windows."""
        self._ended = True

    def take(self) -> list[HeardWindow]:
        """Those that are next and complete."""
        found = []
        while (heard := self._heard.get(self._taken)) is not None:
            following = self._taken + 1
            if heard.window.continues and (following < self.expected or not self._ended):
                if (after := self._heard.get(following)) is None:
                    break
                if after.window.shared:
                    heard, self._heard[following] = _stitched(heard, after)
            del self._heard[self._taken]
            self._taken = following
            found.append(heard)
        return found


def _stitched(first: HeardWindow, second: HeardWindow) -> tuple[HeardWindow, HeardWindow]:
    """Two windows that share samples, without the words that both have in both. Phrases with times stay as they are."""
    if len(first.segments) != 1 or len(second.segments) != 1:
        return first, second
    [before], [after] = first.segments, second.segments
    words, others = before.text.split(), after.text.split()
    if len(words) != len(before.words) or len(others) != len(after.words):
        return first, second
    shared = second.window.shared / SAMPLE_RATE
    kept, left_out = overlap(words, others, first.window.end - first.window.start, shared)
    before = replace(before, text=" ".join(words[:kept]), words=before.words[:kept])
    after = replace(
        after, start=after.start + shared / 2, text=" ".join(others[left_out:]), words=after.words[left_out:]
    )  # fmt: skip
    return (
        replace(first, segments=(before,) if before.text else ()),
        replace(second, segments=(after,) if after.text else ()),
    )


def overlap(before: Sequence[str], after: Sequence[str], seconds: Seconds, shared: Seconds) -> tuple[int, int]:
    """(how many words of the first to keep, how many of the second to leave out), where the first is of `seconds`, and
    the end of it and the beginning of the second are of the same `shared` seconds.

    Of all ways to lay the two ends over each other, that in which most words are alike, where the same ones count far
    more, and fewest stand alone. The last word of the first may be cut off, and so may the first word of the second:
    both give way to what the other has. If no word is alike, nothing is left out.
    """
    shared_words = len(before) * shared / max(seconds, shared, 1e-3)
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
