"""Timestamps in a transcript: every phrase stands between its start and end in seconds, `<1.2>שלום עולם<2.3>`, if the
system turn asks for it. Times in Whisper's form, `<|1.20|>`, take nine tokens each, these take six."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple, Protocol

SWITCH = "timestamps"
_PAUSE = 0.3  # a pause of this many seconds between words ends a phrase
_MARK = re.compile(r"<\d+\.\d>")
_PHRASE = re.compile(r"<(\d+\.\d)>([^<>]+)<(\d+\.\d)>\s*")
_BEYOND = 0.2  # the most seconds by which a time may be after the end of the clip


class Timed(Protocol):
    """A word or phrase with its times in seconds."""

    @property
    def text(self) -> str: ...
    @property
    def start(self) -> float: ...
    @property
    def end(self) -> float: ...


class Phrase(NamedTuple):
    """The text between two times, in seconds from the beginning of the clip."""

    start: float
    end: float
    text: str


def phrases(text: str, seconds: float) -> list[Phrase]:
    """The phrases in the output of a model that was asked for timestamps, for a clip of `seconds`. Empty if a part has
    no times, times are not in order, a phrase has no duration, or times are after the end of the clip."""
    found: list[Phrase] = []
    end = 0
    for match in _PHRASE.finditer(text):
        if match.start() != end:
            return []
        end = match.end()
        first, last = float(match[1]), float(match[3])
        if last > seconds + _BEYOND:
            return []
        phrase = Phrase(first, min(last, seconds), match[2].strip())
        if phrase.start >= phrase.end or not phrase.text or (found and phrase.start < found[-1].end):
            return []
        found.append(phrase)
    return found if end == len(text) else []


def later(text: str, seconds: float) -> str:
    """The text with `seconds` added to every time."""
    return _MARK.sub(lambda mark: f"<{float(mark[0][1:-1]) + seconds:.1f}>", text)


def without_times(text: str) -> str:
    """The transcript without its timestamps."""
    return _MARK.sub("", text)


def timestamp_prompt(context: str) -> str:
    """A system turn that asks for timestamps, followed by the context."""
    return f"{SWITCH}\n{context}" if context else SWITCH


def text_with_times(text: str, segments: Sequence[Timed], words: Sequence[Timed]) -> str | None:
    """The text with the times of its segments, or of its word runs between pauses if there are more of those, to a
    tenth of a second. None if neither segments nor words match the text."""
    ways: list[list[Sequence[Timed]]] = [[[segment] for segment in segments], list(_runs(words))]
    matching = [way for way in ways if text and " ".join(map(_said, way)) == text]
    if not matching:
        return None
    return " ".join(map(_marked, matching[-1] if len(matching[-1]) > len(matching[0]) else matching[0]))


def _marked(words: Sequence[Timed]) -> str:
    return f"<{words[0].start:.1f}>{_said(words)}<{words[-1].end:.1f}>"


def _said(words: Sequence[Timed]) -> str:
    return " ".join(word.text for word in words)


def _runs(words: Sequence[Timed]) -> Iterator[Sequence[Timed]]:
    run = list(words[:1])
    for before, word in pairwise(words):
        if word.start - before.end >= _PAUSE:
            yield run
            run = []
        run.append(word)
    if run:
        yield run
