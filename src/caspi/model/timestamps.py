"""Times in a transcript: every phrase between the seconds it starts and ends at, `<1.2>שלום עולם<2.3>`, where the
system turn asks for them. Times in Whisper's form, `<|1.20|>`, cost the tokenizer nine tokens each, these six."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple, Protocol

SWITCH = "timestamps"
_PAUSE = 0.3  # seconds between words that end a phrase
_MARK = re.compile(r"<\d+\.\d>")
_PHRASE = re.compile(r"<(\d+\.\d)>([^<>]+)<(\d+\.\d)>\s*")
_BEYOND = 0.2  # seconds after a clip's end that a time may be


class Timed(Protocol):
    """A word or phrase with its times in seconds."""

    @property
    def text(self) -> str: ...
    @property
    def start(self) -> float: ...
    @property
    def end(self) -> float: ...


class Phrase(NamedTuple):
    """What is said between two times, in seconds from the clip's beginning."""

    start: float
    end: float
    text: str


def phrases(text: str, seconds: float) -> list[Phrase]:
    """What a model that was asked for times says, within a clip of so many seconds; none where a part has no times, or
    they are not in order, a phrase takes none, or they go on after the clip's end."""
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
    """With every time so much later."""
    return _MARK.sub(lambda mark: f"<{float(mark[0][1:-1]) + seconds:.1f}>", text)


def without_times(text: str) -> str:
    """The transcript alone."""
    return _MARK.sub("", text)


def timestamp_prompt(context: str) -> str:
    """The system turn that asks for times, before what else it holds."""
    return f"{SWITCH}\n{context}" if context else SWITCH


def text_with_times(text: str, segments: Sequence[Timed], words: Sequence[Timed]) -> str | None:
    """A text with the times of its segments, or of its words between pauses where there are more of these, to a tenth
    of a second; None where neither says the same."""
    ways: list[list[Sequence[Timed]]] = [[[segment] for segment in segments], list(_runs(words))]
    told = [way for way in ways if text and " ".join(map(_said, way)) == text]
    if not told:
        return None
    return " ".join(map(_marked, told[-1] if len(told[-1]) > len(told[0]) else told[0]))


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
