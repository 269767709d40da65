"""The times of the words of transcripts, from an aligner that reads them beside their audio."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from caspi.alignment.align import AlignedWord, Aligner, AlignmentRequest
from caspi.audio import SAMPLE_RATE, Seconds
from caspi.inference.engine.words import RecognisedWord
from caspi.inference.transcripts import HeardWindow, TimedText, TimedWindow


def with_word_times(aligner: Aligner, spoken: str | None, heard: Sequence[HeardWindow]) -> list[TimedWindow]:
    """The segments of windows, their words with times where they can be aligned. spoken: the language; None: that which
    the model has identified."""
    requests: dict[tuple[int, int], AlignmentRequest] = {}
    for number, window in enumerate(heard):
        language = spoken or window.hypothesis.language or "Hebrew"
        for place, segment in enumerate(window.segments):
            if aligner.reads(segment.text, language):
                requests[number, place] = AlignmentRequest(_heard_in(window, segment), segment.text, language)
    aligned = zip(requests, aligner.align(list(requests.values())), strict=True)
    found = {place: alignment for place, alignment in aligned if alignment.confidence >= _LEAST_CONFIDENCE}
    timed = []
    for number, window in enumerate(heard):
        alignments = [found.get((number, place)) for place in range(len(window.segments))]
        segments = tuple(
            replace(segment, words=_timed(segment, alignment.words, segment.start)) if alignment else segment
            for segment, alignment in zip(window.segments, alignments, strict=True)
        )
        unaligned = sum(alignment is None for alignment in alignments)
        timed.append(TimedWindow(segments, unaligned))
    return timed


_LEAST_CONFIDENCE = 0.05  # of a segment: below it the aligner does not know the language (Spanish 1e-5, Hebrew 0.28)


def _heard_in(window: HeardWindow, segment: TimedText) -> np.ndarray:
    samples, start = window.window.samples, window.window.start
    return samples[round((segment.start - start) * SAMPLE_RATE) : round((segment.end - start) * SAMPLE_RATE)]


def _timed(segment: TimedText, aligned: Sequence[AlignedWord], start: Seconds) -> tuple[RecognisedWord, ...]:
    """The recognised words, each from the start of the aligned word with its first letter to the end of that with its
    last: punctuation that stands alone is a part of an aligned word, and in scripts without spaces every letter is one.
    """
    of_letter = [word for word in aligned for _ in "".join(word.text.split())]
    if len(of_letter) != sum(len(word.text) for word in segment.words):
        return segment.words
    found, first = [], 0
    for word in segment.words:
        last = first + len(word.text) - 1
        found.append(replace(word, start=start + of_letter[first].start, end=start + of_letter[last].end))
        first = last + 1
    return tuple(found)
