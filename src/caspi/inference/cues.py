"""Subtitle cues from words with times: broken at sentences, pauses and commas, as long as viewers can read.

Limits as in common guides for subtitles (Netflix, BBC): two lines of 42 characters, seven seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from caspi.audio import Seconds

CHARACTERS = 42  # in a line
LONGEST: Seconds = 7.0
_SHORTEST: Seconds = 1.0  # a cue stays this long if the next one does not begin
_PAUSE: Seconds = 0.8  # always ends a cue
_SENTENCE_ENDS = ".?!…׃"
_PHRASE_ENDS = ",;:–"
_PHRASE_BONUS: Seconds = 0.5  # a comma is as good a place to break as a pause of this length


@dataclass(frozen=True, slots=True)
class TimedWord:
    """A written word; or a whole text, where its words have no times."""

    text: str
    start: Seconds
    end: Seconds


@dataclass(frozen=True, slots=True)
class Cue:
    """Words that are shown together."""

    start: Seconds
    end: Seconds
    words: tuple[TimedWord, ...]

    @property
    def rows(self) -> list[tuple[TimedWord, ...]]:
        """The words of each line; two lines are about equally long, and longer than the limit only if a word is."""
        if len(self.words) == 1 or len(_line(self.words)) <= CHARACTERS:
            return [self.words]
        broken = [[self.words[:at], self.words[at:]] for at in range(1, len(self.words))]
        return min(broken, key=lambda rows: max(len(_line(row)) for row in rows))

    @property
    def lines(self) -> list[str]:
        """The text of each line."""
        return [_line(row) for row in self.rows]


def _line(words: Sequence[TimedWord]) -> str:
    return " ".join(word.text for word in words)


def cues(words: Sequence[TimedWord]) -> list[Cue]:
    """All words in order, each in one cue; cues do not overlap if words do not."""
    groups: list[list[TimedWord]] = []
    held: list[TimedWord] = []
    for word in words:
        if held and _ends(held, word):
            groups.append(held)
            held = []
        while held and not _fits([*held, word]):
            at = _best_break(held)
            groups.append(held[:at])
            held = held[at:]
        held.append(word)
    if held:
        groups.append(held)
    following = [*(group[0].start for group in groups[1:]), float("inf")]
    return [
        Cue(group[0].start, max(group[-1].end, min(group[0].start + _SHORTEST, until)), tuple(group))
        for group, until in zip(groups, following, strict=False)  # without words there is no cue
    ]


def _ends(held: Sequence[TimedWord], word: TimedWord) -> bool:
    """Whether a cue is over before a word, however short it is."""
    if word.start - held[-1].end >= _PAUSE:
        return True
    return held[-1].text[-1:] in _SENTENCE_ENDS and held[-1].end - held[0].start >= _SHORTEST


def _fits(words: Sequence[TimedWord]) -> bool:
    if words[-1].end - words[0].start > LONGEST:
        return False
    return max(map(len, Cue(0.0, 0.0, tuple(words)).lines)) <= CHARACTERS


def _best_break(held: Sequence[TimedWord]) -> int:
    """How many words of a full cue stay in it: all, or up to a pause or a comma in its second half."""

    def gain(at: int) -> tuple[float, int]:
        if at == len(held):
            return 0.1, at
        pause = held[at].start - held[at - 1].end
        return pause + _PHRASE_BONUS * (held[at - 1].text[-1:] in _PHRASE_ENDS), at

    return max(range(max(1, (len(held) + 1) // 2), len(held) + 1), key=gain)
