"""Cuts long recordings with their text but without times, for `caspi prepare`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from caspi.alignment.align import AlignedWord, Aligner, AlignmentRequest
from caspi.audio import SAMPLE_RATE, AudioError
from caspi.corpus.pipeline.segmentation import Segmentation, can_be_cut, cut, is_too_long
from caspi.corpus.utterance import Recording, Segment, Word
from caspi.language import language
from caspi.language.spoken_words import spoken_words
from caspi.model.files import model_fingerprint
from caspi.model.loading import resolve
from caspi.reporting.wording import percent

_EDGE_WORDS = 2


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
        return cls(aligner, policy, model_fingerprint(Path(resolve(policy.align))))

    def __call__(self, recording: Recording) -> Recording:
        """Audio that cannot be read is left to the pipeline, which says why."""
        if recording.problem or not self._may_be_too_long(recording):
            return recording
        try:
            samples = _whole(recording)
        except AudioError:
            return recording
        whole = len(samples) / SAMPLE_RATE
        segments = recording.segments or [Segment(recording.start, min(recording.end or whole, whole), recording.text)]
        found = [piece for segment in segments for piece in self._pieces(segment, samples, recording.language)]
        return recording if found == list(segments) and not recording.segments else replace(recording, segments=found)

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
        [aligned] = self.aligner.align([AlignmentRequest(heard, segment.text, spoken)])
        if aligned.problem:
            return [replace(segment, problem=aligned.problem)]
        words = tuple(Word(word.text, segment.start + word.start, segment.start + word.end) for word in aligned.words)
        pieces, first = [], 0
        for span in cut(replace(segment, words=words), self.policy.max_seconds):
            following = first + len(span.words)
            assert span.end is not None  # cut knows where the segment ends
            problem = self._problem(aligned.words[first:following])
            pieces.append(Segment(span.start, span.end, span.text, span.words, problem=problem))
            first = following
        return pieces

    def _problem(self, words: Sequence[AlignedWord]) -> str:
        """Why a piece is not to be trusted; "" if it is."""
        for part, some in (
            ("", words), ("its first words ", words[:_EDGE_WORDS]), ("its last words ", words[-_EDGE_WORDS:])
        ):  # fmt: skip
            confidence = float(np.mean([word.confidence for word in some]))
            if confidence < self.policy.min_confidence:
                return f"{part}not found in the audio with confidence ({percent(confidence)})"
        return ""


def _whole(recording: Recording) -> np.ndarray:
    """All samples up to the recording's end, float32 [n] at 16 kHz."""
    stream, _ = recording.audio.open()
    blocks, read = [], 0
    limit = math.inf if recording.end is None else recording.end * SAMPLE_RATE
    for block in stream.blocks:
        blocks.append(block)
        read += len(block)
        if read >= limit:
            break
    return np.concatenate(blocks) if blocks else np.zeros(0, np.float32)
