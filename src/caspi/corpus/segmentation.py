"""Long recordings to utterances: cut only where times are known, every utterance with its own words only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from caspi.audio import Seconds
from caspi.config import Config
from caspi.corpus.utterance import Segment, Word


class Segmentation(Config):
    """max_seconds: the longest utterance; by: whole segments where they fit, or as many as fit together."""

    max_seconds: Seconds = 30.0
    by: Literal["segment", "pack"] = "segment"


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch to become an utterance; times from the start of the recording."""

    start: Seconds
    end: Seconds
    text: str
    words: tuple[Word, ...]


def spans(segments: Sequence[Segment], policy: Segmentation) -> Iterator[Span]:
    """Utterances of a recording, in order. A segment longer than the limit is cut at its words;
    one without words comes out whole, for the duration filter to judge."""
    for segment in _packed(segments, policy) if policy.by == "pack" else segments:
        if segment.end - segment.start <= policy.max_seconds or not segment.words:
            yield Span(segment.start, segment.end, segment.text, segment.words)
        else:
            yield from _cut(segment, policy.max_seconds)


def _packed(segments: Sequence[Segment], policy: Segmentation) -> Iterator[Segment]:
    """Neighbouring segments joined while they fit."""
    held: Segment | None = None
    for segment in segments:
        if held is not None and segment.end - held.start <= policy.max_seconds:
            held = Segment(held.start, segment.end, f"{held.text} {segment.text}", held.words + segment.words)
            continue
        if held is not None:
            yield held
        held = segment
    if held is not None:
        yield held


def _cut(segment: Segment, limit: Seconds) -> Iterator[Span]:
    """Cuts at word starts so that every piece fits, each as near to an equal share as its words allow.

    The last word of a piece ends where the next piece starts.
    """
    starts = [segment.start, *(word.start for word in segment.words[1:])]
    first = 0
    while first < len(starts):
        left = segment.end - starts[first]
        pieces = max(1, int(-(-left // limit)))
        target = starts[first] + left / pieces
        last = len(starts) if pieces == 1 else _nearest_cut(starts, first, target, starts[first] + limit)
        end = segment.end if last == len(starts) else starts[last]
        words = segment.words[first:last]
        yield Span(starts[first], end, " ".join(word.text for word in words), words)
        first = last


def _nearest_cut(starts: list[Seconds], first: int, target: Seconds, latest: Seconds) -> int:
    """Index of the word before which to cut: the start nearest to `target`, not after `latest` if possible."""
    choices = [index for index in range(first + 1, len(starts)) if starts[index] <= latest]
    return min(choices, key=lambda index: abs(starts[index] - target)) if choices else first + 1
