"""Evaluation sets as what must not be trained on: their audio and text, fingerprinted once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from caspi import audio
from caspi.audio import AudioError
from caspi.corpus import fingerprints
from caspi.corpus.duplicates import EvaluationSets
from caspi.corpus.signals import FRAME, spectrogram
from caspi.corpus.sources import Source
from caspi.corpus.utterance import Recording
from caspi.language import language

_SECONDS_AT_ONCE = 600


def evaluation_sets(sources: Sequence[Source], spoken_language: str, work: Path) -> tuple[EvaluationSets, str]:
    """The sets a recipe names, and a digest that changes when they do. Fingerprints are kept in `work`.

    Raises UsageError where a set cannot be read: a check against nothing would find nothing.
    """
    found = EvaluationSets()
    digests = []
    for source in sources:
        key = hashlib.sha256(f"{source.model_dump_json()}\0{source.identity()}".encode()).hexdigest()[:32]
        digests.append(key)
        path = work / "evaluation" / f"{key}.jsonl"
        if not path.is_file():
            _write(path, source.recordings(spoken_language))
        with path.open(encoding="utf-8", newline="\n") as lines:
            for line in lines:
                entry = json.loads(line)
                phases = [np.frombuffer(bytes.fromhex(words), np.uint16) for words in entry["phases"]]
                found.add(bytes.fromhex(entry["exact"]), phases, entry["text"])
    return found, " ".join(digests)


def _write(path: Path, recordings: Iterator[Recording]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    with partial.open("w", encoding="utf-8") as file:
        for recording in recordings:
            text = recording.text or " ".join(segment.text for segment in recording.segments)
            compared = language(recording.language).normalisers["fair"](text)
            for exact, phases in _fingerprints(recording):
                entry = {"exact": exact.hex(), "phases": [p.tobytes().hex() for p in phases], "text": compared}
                file.write(json.dumps(entry, ensure_ascii=False) + "\n")
                compared = ""  # once a recording
    partial.rename(path)


def _fingerprints(recording: Recording) -> Iterator[tuple[bytes, list[np.ndarray]]]:
    """Of every ten minutes: hash of the samples, and words at two phases half a frame apart."""
    try:
        stream, _ = recording.audio.open()
        held: list[np.ndarray] = []
        for block in stream.blocks:
            held.append(block)
            if sum(map(len, held)) >= _SECONDS_AT_ONCE * audio.SAMPLE_RATE:
                yield _of(np.concatenate(held))
                held = []
        if held:
            yield _of(np.concatenate(held))
    except AudioError:
        # No audio to leak; its text still counts.
        yield b"", []


def _of(samples: np.ndarray) -> tuple[bytes, list[np.ndarray]]:
    phases = [fingerprints.words(spectrogram(samples[shift:])) for shift in (0, FRAME // 2)]
    return fingerprints.exact(audio.pcm16(samples)), phases
