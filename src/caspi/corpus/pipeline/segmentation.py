"""Cuts long recordings into utterances, only where times are known; every utterance has exactly its own words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from pydantic import Field

from caspi.config import Config, Seconds
from caspi.corpus.utterance import Recording, Segment, Word

_SLACK = 0.1  # seconds that a word may be outside its segment because of rounding


class Segmentation(Config):
    """How long recordings are cut into utterances, where the times of their words or segments are known."""

    max_seconds: Seconds = Field(30.0, gt=0)
    """Greatest length of an utterance."""
    by: Literal["segment", "pack"] = "segment"
    """`segment` makes one utterance of every segment; `pack` joins neighbouring segments while they fit."""
    max_gap: Seconds = Field(2.0, ge=0)
    """Segments with a longer gap between them are not joined, because the audio in the gap has no transcript."""
    align: str | None = None
    """An aligner by letters, a folder or a name on the Hub. What is longer than `max_seconds` and has no times is cut
    where the aligner finds its words. Utterances whose words it finds hardly better than the same words in another
    order are rejected as `not_aligned`, and so is a recording whose whole text is."""


@dataclass(frozen=True, slots=True)
class Span:
    """A span that becomes an utterance; times from the start of the recording. `end` None: up to the end of the audio.

    id: of its segment; empty if it is a part of one segment, or several segments. problem: of its segment.
    """

    start: Seconds
    end: Seconds | None
    text: str
    words: tuple[Word, ...] = ()
    phrases: tuple[Word, ...] = ()
    id: str = ""
    problem: str = ""


class WordTimer(Protocol):
    """Finds the times of words in recordings that are too long without them."""

    @property
    def fingerprint(self) -> str:
        """Of everything the times depend on."""
        ...

    def __call__(self, recording: Recording) -> Recording:
        """The recording in segments that are short enough, or with times; as it is if it needs none."""
        ...


def spans(segments: Sequence[Segment], policy: Segmentation) -> Iterator[Span]:
    """Utterances of a recording, in order of their starts. A segment longer than the limit is cut between its words;
    without word times it is returned whole, and the duration filter decides."""
    ordered = sorted(map(_sound, segments), key=lambda segment: (segment.start, segment.end))
    for run in _runs(ordered, policy):
        if len(run) > 1 or run[0].problem or not is_too_long(run[0], policy) or not can_be_cut(run[0]):
            yield Span(
                start=run[0].start,
                end=run[-1].end,
                text=" ".join(segment.text for segment in run),
                words=tuple(word for segment in run for word in segment.words),
                phrases=tuple(Word(segment.text, segment.start, segment.end) for segment in run),
                id=run[0].id if len(run) == 1 else "",
                problem=run[0].problem,
            )
        else:
            yield from cut(run[0], policy.max_seconds)


def is_too_long(segment: Segment, policy: Segmentation) -> bool:
    """Whether a segment must be cut."""
    return segment.end - segment.start > policy.max_seconds


def _sound(segment: Segment) -> Segment:
    """The segment without its words if their times are impossible: out of order, reversed, or outside the segment."""
    times = [time for word in segment.words for time in (word.start, word.end)]
    starts = [word.start for word in segment.words]
    inside = all(segment.start - _SLACK <= time <= segment.end + _SLACK for time in times)
    forward = all(word.start <= word.end for word in segment.words) and starts == sorted(starts)
    return _as_written(segment) if inside and forward else replace(segment, words=())


def can_be_cut(segment: Segment) -> bool:
    """False if the timed words are not the complete text, because a cut would lose the others."""
    return bool(segment.words) and " ".join(word.text for word in segment.words).split() == segment.text.split()


def _as_written(segment: Segment) -> Segment:
    """Words spelled as in the text if they differ in punctuation only, because aligners omit punctuation."""
    written: list[str] = []
    for token in segment.text.split():
        if written and not _bare(token):  # a dash on its own belongs to the word before it
            written[-1] += f" {token}"
        else:
            written.append(token)
    if [_bare(token) for token in written] != [_bare(word.text) for word in segment.words]:
        return segment
    return replace(segment, words=tuple(word._replace(text=t) for word, t in zip(segment.words, written, strict=True)))


def _bare(token: str) -> str:
    return "".join(character for character in token if character.isalnum())


def _runs(segments: Sequence[Segment], policy: Segmentation) -> Iterator[list[Segment]]:
    """Runs of neighbouring segments to join: one at a time, or as many as fit."""
    held: list[Segment] = []
    for segment in segments:
        fits = (
            policy.by == "pack"
            and held
            and not segment.problem
            and not held[-1].problem
            and segment.end - held[0].start <= policy.max_seconds
            and 0 <= segment.start - held[-1].end + 1e-3 <= policy.max_gap
        )
        if held and not fits:
            yield held
            held = []
        held.append(segment)
    if held:
        yield held


def cut(segment: Segment, limit: Seconds) -> Iterator[Span]:
    """Cuts between words so that every piece fits, at the longest pause near an equal share of the remaining time.

    A piece ends, and the next one starts, in the middle of the pause between them.
    """
    words = segment.words
    first, start = 0, segment.start
    while first < len(words):
        left = segment.end - start
        pieces = max(1, int(-(-left // limit)))
        if pieces == 1:
            following, end = len(words), segment.end
        else:
            following = _best_cut(words, first, start + left / pieces, start + limit)
            end = _between(words, following) if following < len(words) else segment.end
        yield Span(start, end, " ".join(word.text for word in words[first:following]), words[first:following])
        first, start = following, end


def _between(words: Sequence[Word], index: int) -> Seconds:
    """Middle of the pause before word `index`; the start of the word if there is no pause."""
    return (min(words[index - 1].end, words[index].start) + words[index].start) / 2


def _best_cut(words: Sequence[Word], first: int, target: Seconds, latest: Seconds) -> int:
    """Index of the word before which to cut, not after `latest` if possible.

    A pause outweighs a distance from the target of five times its length in seconds.
    """
    choices = [index for index in range(first + 1, len(words)) if _between(words, index) <= latest]

    def cost(index: int) -> float:
        pause = max(0.0, words[index].start - words[index - 1].end)
        return abs(_between(words, index) - target) - 5 * pause

    return min(choices, key=cost) if choices else first + 1
