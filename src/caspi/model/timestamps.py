"""Timestamps in a transcript: every phrase stands between its start and end in seconds, `<1.2>שלום עולם<2.3>`, if the
system turn requests it. Times in Whisper's form, `<|1.20|>`, take nine tokens each, these take six."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple, Protocol

TIMESTAMP_KEYWORD = "timestamps"
_PAUSE = 0.3  # a pause of this many seconds between words ends a phrase
_MARK = re.compile(r"<\d+\.\d>")
_PHRASE = re.compile(r"<(\d+\.\d)>([^<>]+)<(\d+\.\d)>\s*")
_MAX_OVERRUN = 0.2  # seconds by which a time may be after the end of the clip


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
    """The phrases in the output of a model from which timestamps were requested, for a clip of `seconds`. Empty if a
    part has no times, times are not in order, a phrase has no duration, or times are after the end of the clip."""
    result: list[Phrase] = []
    end = 0
    for match in _PHRASE.finditer(text):
        if match.start() != end:
            return []
        end = match.end()
        first, last = float(match[1]), float(match[3])
        if last > seconds + _MAX_OVERRUN:
            return []
        phrase = Phrase(first, min(last, seconds), match[2].strip())
        if phrase.start >= phrase.end or not phrase.text or (result and phrase.start < result[-1].end):
            return []
        result.append(phrase)
    return result if end == len(text) else []


def shift_times(text: str, seconds: float) -> str:
    """The text with `seconds` added to every time."""
    return _MARK.sub(lambda mark: f"<{float(mark[0][1:-1]) + seconds:.1f}>", text)


def without_times(text: str) -> str:
    """The transcript without its timestamps."""
    return _MARK.sub("", text)


def timestamp_prompt(context: str) -> str:
    """A system turn that requests timestamps, followed by the context."""
    return f"{TIMESTAMP_KEYWORD}\n{context}" if context else TIMESTAMP_KEYWORD


def text_with_times(text: str, segments: Sequence[Timed], words: Sequence[Timed]) -> str | None:
    """The text with the times of its segments, or of its phrases between pauses if there are more of these, rounded to
    a tenth of a second. None if neither segments nor words match the text."""
    candidates: list[list[Sequence[Timed]]] = [
        [[segment] for segment in segments],
        list(_split_at_pauses(words)),
    ]
    matching = [candidate for candidate in candidates if text and " ".join(map(_joined_text, candidate)) == text]
    if not matching:
        return None
    return " ".join(map(_with_times, matching[-1] if len(matching[-1]) > len(matching[0]) else matching[0]))


def _with_times(words: Sequence[Timed]) -> str:
    return f"<{words[0].start:.1f}>{_joined_text(words)}<{words[-1].end:.1f}>"


def _joined_text(words: Sequence[Timed]) -> str:
    return " ".join(word.text for word in words)


def _split_at_pauses(words: Sequence[Timed]) -> Iterator[Sequence[Timed]]:
    words_of_phrase = list(words[:1])
    for previous, word in pairwise(words):
        if word.start - previous.end >= _PAUSE:
            yield words_of_phrase
            words_of_phrase = []
        words_of_phrase.append(word)
    if words_of_phrase:
        yield words_of_phrase
