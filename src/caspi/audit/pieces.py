"""The parts of a clip in which its words are found, new boundaries between neighbouring clips, and numbers as they were
heard: what can be proposed for a transcript that an audit flags."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from caspi.alignment.align import AlignedWord
from caspi.alignment.recordings import at_pauses
from caspi.audio import SAMPLE_RATE, Seconds
from caspi.audit.signals import speech_within
from caspi.corpus.signals import quiet_frames
from caspi.corpus.utterance import Word
from caspi.language import language
from caspi.language.spoken_words import spoken_form

_NEIGHBOURS = np.ones(3)  # words whose mean confidence says whether the one in the middle is found
_UNTRANSCRIBED: Seconds = 0.5  # of speech between two words: more than a slow consonant
_MARGIN: Seconds = 0.1  # kept beside the first and the last word of a part


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a clip, in seconds, and its text."""

    start: Seconds
    end: Seconds
    text: str


def found_parts(
    words: Sequence[AlignedWord], samples: np.ndarray, least: float, min_seconds: Seconds, min_words: int
) -> list[Part]:
    """The parts of samples, float32 [n], whose words are there: mean confidence of at least `least`, and no speech
    without a word between them. Speech before and after is left out."""
    speech = ~quiet_frames(samples)
    seconds = len(samples) / SAMPLE_RATE
    parts = []
    for first, last in _runs(words, speech, least):
        start, end = words[first].start, words[last].end
        quiet_before = first == 0 and speech_within(speech, 0.0, start) < _UNTRANSCRIBED
        quiet_after = last + 1 == len(words) and speech_within(speech, end, seconds) < _UNTRANSCRIBED
        start = 0.0 if quiet_before else max(0.0, start - _MARGIN)
        end = seconds if quiet_after else min(seconds, end + _MARGIN)
        if end - start >= min_seconds and last + 1 - first >= min_words:
            parts.append(Part(start, end, " ".join(word.text for word in words[first : last + 1])))
    return parts


def _runs(words: Sequence[AlignedWord], speech: np.ndarray, least: float) -> Iterator[tuple[int, int]]:
    """First and last word of every run of words that are there: sure by themselves, as the first and the last of a run
    always are, or with their neighbours."""
    confidence = np.array([word.confidence for word in words])
    around = np.convolve(confidence, _NEIGHBOURS)[1:-1] / np.convolve(np.ones(len(words)), _NEIGHBOURS)[1:-1]
    found = np.maximum(confidence, around) >= least
    begin: int | None = None
    for number in range(len(words) + 1):
        ends = number == len(words) or not found[number]
        if begin is not None and (ends or _is_gap(words[number - 1], words[number], speech)):
            sure = [n for n in range(begin, number) if confidence[n] >= least]
            if sure:
                yield sure[0], sure[-1]
            begin = None
        if not ends and begin is None:
            begin = number


def _is_gap(one: AlignedWord, other: AlignedWord, speech: np.ndarray) -> bool:
    return speech_within(speech, one.end, other.start) >= _UNTRANSCRIBED


def new_boundaries(counts: Sequence[int], words: Sequence[AlignedWord], samples: np.ndarray) -> list[Seconds]:
    """Where neighbouring clips, joined to samples, float32 [n], are cut again so that each has its own words: between
    the last word of one and the first of the next, in a pause if there is one. counts: words of each clip."""
    timed = at_pauses([Word(word.text, word.start, word.end) for word in words], samples)
    ends = np.cumsum(counts)[:-1].tolist()
    return [(timed[end - 1].end + timed[end].start) / 2 for end in ends]


def with_numbers_as_heard(text: str, heard: str, spoken: str) -> str | None:
    """The text with the numbers that a recogniser heard in place of its own, where all else is alike; None if there is
    no other number. spoken: the language, whose number words count as numbers if it knows them."""
    mine, its = text.split(), heard.split()
    matcher = difflib.SequenceMatcher(None, list(map(spoken_form, mine)), list(map(spoken_form, its)), autojunk=False)
    written: list[str] = []
    changed = False
    for what, first, last, start, stop in matcher.get_opcodes():
        own, other = _number(mine[first:last], spoken), _number(its[start:stop], spoken)
        if what == "replace" and own and other:
            written += its[start:stop] if own != other else mine[first:last]
            changed |= own != other
        elif what == "equal":
            written += mine[first:last]
        else:
            return None
    return " ".join(written) if changed else None


def _number(words: Sequence[str], spoken: str) -> str:
    """The words in digits, without punctuation; "" if one of them is not a number."""
    known = language(spoken)
    as_digits = known.relaxations.get("numerals", str)
    digits = as_digits(known.normalisers["fair"](" ".join(words)))
    return digits if all(any(map(str.isdigit, word)) for word in digits.split()) else ""
