"""Cuts long recordings with their text but without times, for `caspi prepare`."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from caspi.alignment.align import AlignedWord, Aligner, Alignment, AlignmentRequest, confidence, confidence_at_ends
from caspi.audio import SAMPLE_RATE, AudioError, Seconds
from caspi.corpus.pipeline.process import clips
from caspi.corpus.pipeline.segmentation import Segmentation, Span, can_be_cut, cut, is_too_long
from caspi.corpus.signals import pauses
from caspi.corpus.utterance import Recording, Segment, Word
from caspi.language import language
from caspi.language.spoken_words import spoken_words
from caspi.model.loading import content_of
from caspi.reporting.wording import percent

_NEARLY_ALL = 0.95
_NO_END: Seconds = 1e9
_ABOVE_CHANCE = 1.13  # between 1.11, which one of 70 wrong texts exceeded, and the 1.15 of the least sure right one
_PAUSE: Seconds = 0.2  # shorter ones may be inside of a word
_FARTHEST: Seconds = 0.5  # from a boundary of words to a pause that is taken for it


@dataclass(frozen=True, slots=True)
class RecordingAligner:
    """Gives segments to recordings that are too long without times (segmentation.WordTimer)."""

    aligner: Aligner
    policy: Segmentation
    fingerprint: str

    @classmethod
    def of(cls, policy: Segmentation) -> RecordingAligner:
        """With the policy's aligner. Raises UsageError if it cannot be loaded, or takes short clips only."""
        assert policy.align is not None  # the caller asks for one
        aligner = Aligner.of(policy.align)
        aligner.check_long_recordings()
        return cls(aligner, policy, content_of(policy.align))

    def __call__(self, recording: Recording) -> Recording:
        """Audio that cannot be read is left to the pipeline, which says why."""
        if recording.problem or not self._may_be_too_long(recording):
            return recording
        try:
            samples = _whole(recording)
        except AudioError:
            return recording
        found = self.pieces(recording, samples)
        if not recording.segments and len(found) == 1 and not found[0].problem:
            return recording  # it was short enough
        return replace(recording, segments=found)

    def pieces(self, recording: Recording, samples: np.ndarray) -> list[Segment]:
        """The segments of a recording, or it as one, cut where they are too long without times."""
        whole = len(samples) / SAMPLE_RATE
        segments = recording.segments or [Segment(recording.start, min(recording.end or whole, whole), recording.text)]
        return [piece for segment in segments for piece in self._pieces(segment, samples, recording.language)]

    def _may_be_too_long(self, recording: Recording) -> bool:
        """Without reading audio: False only if it is short enough or has times."""
        if recording.segments:
            return any(is_too_long(one, self.policy) and not can_be_cut(one) for one in recording.segments)
        return (recording.end or math.inf) - recording.start > self.policy.max_seconds

    def _pieces(self, segment: Segment, samples: np.ndarray, spoken: str) -> Sequence[Segment]:
        """The segment, or if it is too long without times, its pieces."""
        if not is_too_long(segment, self.policy) or can_be_cut(segment):
            return [segment]
        if not spoken_words(segment.text, language(spoken).unit):
            return [segment]  # the pipeline says what is wrong with its text
        heard = samples[round(segment.start * SAMPLE_RATE) : round(segment.end * SAMPLE_RATE)]
        texts = (segment.text, *in_other_orders(segment.text.split()))
        aligned, *by_chance = self.aligner.align_texts(heard, texts, spoken)
        if problem := aligned.problem or not_its_text(aligned, by_chance):
            return [replace(segment, problem=problem)]
        timed = at_pauses([Word(word.text, word.start, word.end) for word in aligned.words], heard)
        words = tuple(Word(text, segment.start + start, segment.start + end) for text, start, end in timed)
        spans = list(cut(replace(segment, words=words), self.policy.max_seconds))
        counts = [len(span.words) for span in spans]
        ends = list(itertools.accumulate(counts))
        found = [aligned.words[end - count : end] for count, end in zip(counts, ends, strict=True)]
        problems = self._problems(spans, found, samples, spoken)
        return [
            Segment(span.start, span.end or segment.end, span.text, span.words, problem=problem)
            for span, problem in zip(spans, problems, strict=True)
        ]

    def _problems(
        self, spans: Sequence[Span], found: Sequence[Sequence[AlignedWord]], samples: np.ndarray, spoken: str
    ) -> list[str]:
        """Why each piece is not to be trusted; "" if it is: its words are less sure than nearly all pieces with their
        words in the reverse order, or those at its ends less than half of them."""
        reversed_texts = [
            AlignmentRequest(
                samples[round(span.start * SAMPLE_RATE) : round((span.end or 0.0) * SAMPLE_RATE)],
                " ".join(word.text for word in reversed(span.words)),
                spoken,
            )
            for span in spans
        ]
        wrong = [one.words for one in self.aligner.align(reversed_texts) if len(one.words) > 1]
        if not wrong:
            return ["too few words to judge"] * len(spans)
        least = float(np.quantile([confidence(words) for words in wrong], _NEARLY_ALL))
        least_at_ends = float(np.median([confidence_at_ends(words) for words in wrong]))
        problems = []
        for span, words in zip(spans, found, strict=True):
            sure, at_ends = confidence(words), confidence_at_ends(words)
            if sure <= least:
                problems.append(f"words not found in the audio: confidence {percent(sure)}, by chance {percent(least)}")
            elif at_ends <= least_at_ends:
                problems.append(f"first or last words not found in the audio: confidence {percent(at_ends)}")
            elif (span.end or 0.0) - span.start > self.policy.max_seconds:
                problems.append("too much audio without words")
            else:
                problems.append("")
        return problems


def not_its_text(aligned: Alignment, by_chance: Sequence[Alignment]) -> str:
    """Why the text is not that of the recording; "" if it is: its words are found better than in other orders. Single
    pieces cannot tell: of a wrong text, cut where it fits best, some pieces are always found."""
    highest = max((one.confidence for one in by_chance), default=0.0)
    if aligned.confidence > _ABOVE_CHANCE * highest:
        return ""
    return (
        f"the text is not that of the recording: confidence {percent(aligned.confidence)}, of its words in other "
        f"orders up to {percent(highest)}"
    )


def in_other_orders(words: Sequence[str]) -> list[str]:
    """Backwards, and beginning at a third and at two thirds."""
    thirds = [len(words) // 3, 2 * len(words) // 3]
    orders = [words[::-1], *(list(words[first:]) + list(words[:first]) for first in thirds if first)]
    return [" ".join(order) for order in orders]


def at_pauses(words: Sequence[Word], samples: np.ndarray) -> list[Word]:
    """The words of samples, float32 [n], such that neighbours touch unless the audio pauses between them: cuts are made
    in pauses. A pause belongs to the nearest boundary of two words, if one is near."""
    boundaries = np.array([(one.end + other.start) / 2 for one, other in itertools.pairwise(words)])
    starts = np.concatenate([[words[0].start], boundaries])
    ends = np.concatenate([boundaries, [words[-1].end]])
    for first, last in pauses(samples):
        distances = np.maximum(np.maximum(first - boundaries, boundaries - last), 0.0)
        if last - first < _PAUSE or not len(boundaries) or distances.min() > _FARTHEST:
            continue
        nearest = int(distances.argmin())
        if starts[nearest] < first and last < ends[nearest + 1]:
            ends[nearest], starts[nearest + 1] = first, last
    return [Word(word.text, *times) for word, *times in zip(words, starts.tolist(), ends.tolist(), strict=True)]


def _whole(recording: Recording) -> np.ndarray:
    """All samples up to the recording's end, float32 [n] at 16 kHz."""
    stream, _ = recording.audio.open()
    return next(clips(stream, [(0.0, recording.end or _NO_END)]))
