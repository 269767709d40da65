"""Evaluation sets that must not leak into training: fingerprints of their audio and text, computed once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from caspi import audio
from caspi.audio import AudioError
from caspi.corpus.dedup import acoustic_fingerprint
from caspi.corpus.dedup.near_duplicates import EvaluationSets
from caspi.corpus.pipeline.process import clips
from caspi.corpus.signals import FRAME, spectrogram
from caspi.corpus.sources import Source
from caspi.corpus.utterance import Recording
from caspi.errors import UsageError
from caspi.language import language

_PHASES = 4  # frame offsets: any copy is at most 4 ms off one of them, wherever it is cut
_SECONDS_AT_ONCE = 600.0
_FAR = 36_000.0  # seconds: evaluation recordings are at most ten hours long


@dataclass(frozen=True, slots=True)
class ComparedSet:
    """An evaluation set that was searched for. unreadable: recordings without audio that can be compared."""

    set: str
    recordings: int
    unreadable: int


def evaluation_sets(
    sources: Sequence[Source], spoken_language: str, work: Path
) -> tuple[EvaluationSets, str, list[ComparedSet]]:
    """The sets of a recipe, a digest that changes when they do, and the size of each. Fingerprints are saved in `work`.

    Raises UsageError if a set cannot be read, because a check against an empty set would find no leaks.
    """
    found = EvaluationSets()
    digests, compared = [], []
    for source in sources:
        key = hashlib.sha256(f"{source.model_dump_json()}\0{source.identity()}".encode()).hexdigest()[:32]
        digests.append(key)
        path = work / "evaluation" / f"{key}.jsonl"
        if not path.is_file():
            _write(path, source.recordings(spoken_language))
        unreadable = recordings = 0
        with path.open(encoding="utf-8", newline="\n") as lines:
            for line in lines:
                entry = json.loads(line)
                recordings += 1
                unreadable += not entry["phases"]
                phases = [np.frombuffer(bytes.fromhex(words), np.uint16) for words in entry["phases"]]
                found.add(bytes.fromhex(entry["exact"]), phases, entry["text"])
        name = getattr(source, "dataset", "") or str(getattr(source, "path", ""))
        compared.append(ComparedSet(name, recordings, unreadable))
        if unreadable == recordings:
            raise UsageError(f"corpus.evaluation: {name} has no readable audio, so leaks cannot be detected")
    return found, " ".join(digests), compared


def _write(path: Path, recordings: Iterator[Recording]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    with partial.open("w", encoding="utf-8") as file:
        for recording in recordings:
            text = recording.text or " ".join(segment.text for segment in recording.segments)
            normalised = language(recording.language).normalisers["fair"](text)
            for exact, phases in _fingerprints(recording):
                entry = {"exact": exact.hex(), "phases": [p.tobytes().hex() for p in phases], "text": normalised}
                file.write(json.dumps(entry, ensure_ascii=False) + "\n")
                normalised = ""  # only once per recording
    partial.rename(path)


def _fingerprints(recording: Recording) -> Iterator[tuple[bytes, list[np.ndarray]]]:
    """For the parts that are in the set, ten minutes at a time: hash, and words at phases of a quarter frame."""
    stretches = [(segment.start, segment.end) for segment in recording.segments]
    if not stretches:
        stretches = [(recording.start, recording.end or _FAR)]
    try:
        stream, _ = recording.audio.open()
        for samples in clips(stream, sorted(_ten_minutes(stretches))):
            if len(samples):
                yield _of(samples)
    except AudioError:
        yield b"", []  # no readable audio; its text is still checked, and the set is reported


def _ten_minutes(stretches: Sequence[tuple[float, float]]) -> Iterator[tuple[float, float]]:
    for start, end in stretches:
        while start < end:
            yield start, min(end, start + _SECONDS_AT_ONCE)
            start += _SECONDS_AT_ONCE  # noqa: PLW2901


def _of(samples: np.ndarray) -> tuple[bytes, list[np.ndarray]]:
    phases = [acoustic_fingerprint.words(spectrogram(samples[shift:])) for shift in range(0, FRAME, FRAME // _PHASES)]
    return acoustic_fingerprint.exact(audio.pcm16(samples)), phases
