"""Who speaks when, by pyannote.audio where it is installed, and transcripts with it."""

from __future__ import annotations

import importlib.util
import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import numpy as np
import torch

from caspi.audio import SAMPLE_RATE, Seconds
from caspi.errors import UsageError, first_line
from caspi.inference.engine.words import RecognisedWord
from caspi.inference.inputs import AudioInput
from caspi.inference.transcripts import TimedText, Transcript

PIPELINE = "pyannote/speaker-diarization-community-1"


@dataclass(frozen=True, slots=True)
class Turn:
    """One speaker without a break."""

    start: Seconds
    end: Seconds
    speaker: str


FindTurns = Callable[[np.ndarray], list[Turn]]


def check_diarization(inputs: Sequence[AudioInput]) -> None:
    """Raises UsageError where it cannot be done."""
    if not all(importlib.util.find_spec(name) for name in ("pyannote", "pyannote.audio")):
        raise UsageError("--diarize needs the package pyannote.audio: pip install pyannote.audio")
    if any(taken.path is None for taken in inputs):
        raise UsageError("--diarize reads a recording twice, which standard input cannot be: give a file")


def turn_finder(pipeline: str = PIPELINE) -> FindTurns:
    """Finds the turns of samples, float32 [n] at 16 kHz, with a pipeline of pyannote.audio. Raises UsageError."""
    from pyannote.audio import Pipeline

    try:
        loaded: Any = Pipeline.from_pretrained(pipeline, token=os.environ.get("HF_TOKEN"))
    except Exception as error:
        raise UsageError(f"--diarize: {pipeline} cannot be loaded ({first_line(error)})") from error
    if loaded is None:
        raise UsageError(f"--diarize: accept the terms of {pipeline} on the Hub, and set HF_TOKEN")
    if torch.cuda.is_available():
        loaded.to(torch.device("cuda"))

    def found(samples: np.ndarray) -> list[Turn]:
        output = loaded({"waveform": torch.from_numpy(samples)[None], "sample_rate": SAMPLE_RATE})
        annotation = getattr(output, "speaker_diarization", output)  # of pyannote.audio 4; before it was the output
        return [Turn(span.start, span.end, str(name)) for span, _, name in annotation.itertracks(yield_label=True)]

    return found


def with_speakers(transcript: Transcript, turns: Sequence[Turn], start: Seconds = 0.0) -> Transcript:
    """The transcript with the speaker of every segment; one whose words have times is cut where the speaker changes.
    start: of the audio in which the turns were found, in the recording. What is in no turn has no speaker."""
    moved = [Turn(start + turn.start, start + turn.end, turn.speaker) for turn in turns]
    segments = [part for segment in transcript.segments for part in _parts(segment, moved)]
    return replace(transcript, segments=tuple(segments))


def _parts(segment: TimedText, turns: Sequence[Turn]) -> list[TimedText]:
    if not segment.words or any(word.start is None or word.end is None for word in segment.words):
        return [replace(segment, speaker=_speaker(segment.start, segment.end, turns))]
    named = [(_speaker(*_span(word), turns), word) for word in segment.words]
    parts: list[TimedText] = []
    for speaker, group in groupby(named, key=lambda pair: pair[0]):
        words = tuple(word for _, word in group)
        (start, _), (_, end) = _span(words[0]), _span(words[-1])
        parts.append(
            replace(
                segment, start=start, end=end, text=" ".join(word.text for word in words), words=words, speaker=speaker,
                tokens=segment.tokens if not parts else (),
            )
        )  # fmt: skip
    return parts


def _span(word: RecognisedWord) -> tuple[Seconds, Seconds]:
    assert word.start is not None  # _parts has looked
    assert word.end is not None
    return word.start, word.end


def _speaker(start: Seconds, end: Seconds, turns: Sequence[Turn]) -> str | None:
    """Who speaks most of this time."""
    shared: dict[str, float] = defaultdict(float)
    for turn in turns:
        shared[turn.speaker] += max(0.0, min(end, turn.end) - max(start, turn.start))
    best = max(shared, key=lambda name: shared[name], default=None)
    return best if best is not None and shared[best] > 0 else None
