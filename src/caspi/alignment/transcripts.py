"""The times of the words of a transcript, from an aligner that reads it beside its audio."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from caspi.alignment.align import AlignedWord, Aligner, AlignmentRequest
from caspi.audio import SAMPLE_RATE, Seconds
from caspi.inference.engine.words import RecognisedWord
from caspi.inference.transcriber import TimedText, Transcript
from caspi.language import language
from caspi.language.spoken_words import spoken_words


def with_word_times(aligner: Aligner, transcript: Transcript, samples: np.ndarray) -> Transcript:
    """The transcript of samples, float32 [n] at 16 kHz, its words with times where they can be aligned; `unaligned`
    counts the segments where they cannot."""
    spoken = transcript.language or "Hebrew"
    requests: dict[int, AlignmentRequest] = {}
    for number, segment in enumerate(transcript.segments):
        heard = samples[round(segment.start * SAMPLE_RATE) : round(segment.end * SAMPLE_RATE)]
        if spoken_words(segment.text, language(spoken).unit):
            requests[number] = AlignmentRequest(heard, segment.text, spoken)
    found = dict(zip(requests, aligner.align(list(requests.values())), strict=True))
    segments = [
        replace(segment, words=_timed(segment, found[number].words, segment.start)) if number in found else segment
        for number, segment in enumerate(transcript.segments)
    ]
    unaligned = sum(bool(alignment.problem) for alignment in found.values())
    return replace(transcript, segments=tuple(segments), unaligned=unaligned)


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
