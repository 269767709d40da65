"""Cuts a long recording whose text is known, but no times, and compares the cuts with the known times of words.

    python benchmarks/long_alignment.py MANIFEST ALIGNER [--minutes 30] [--max-seconds 20] [--only RECORDING ...]

The recordings of a manifest with the start of every word (shared/speech/torah) are joined to one, aligned with all of
their text, and cut as `caspi prepare` with `segmentation: {align: ALIGNER}` does. A cut between two words is right
within 0.3 s of the known start of the second, or inside of a pause of the audio that is within 0.3 s of it: such
manifests count a pause to the word after it, and a cut is in its middle. `near_start`: without pauses. Prints one JSON
line.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np

from caspi import audio
from caspi.alignment.align import Aligner
from caspi.alignment.recordings import RecordingAligner
from caspi.audio import SAMPLE_RATE
from caspi.corpus.pipeline.segmentation import Segmentation
from caspi.corpus.signals import pauses
from caspi.corpus.utterance import FileAudio, Recording, Word

_NEAR = 0.3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("aligner")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--max-seconds", type=float, default=20)
    parser.add_argument("--only", nargs="+", help="recordings that the aligner was not trained on")
    options = parser.parse_args()
    lines = [json.loads(line) for line in options.manifest.read_text(encoding="utf-8").splitlines()]
    samples, words = _joined([line for line in lines if not options.only or line["recording"] in options.only], options)
    policy = Segmentation(align=options.aligner, max_seconds=options.max_seconds)
    aligner = RecordingAligner(Aligner.of(options.aligner), policy, "")
    path = options.manifest  # its audio is not read again
    recording = Recording("long", FileAudio(path), "", "", "Hebrew", " ".join(word.text for word in words))
    began = time.monotonic()
    pieces = aligner.pieces(recording, samples)
    seconds = time.monotonic() - began
    known = np.array([word.start for word in words])
    first = np.cumsum([len(piece.words) for piece in pieces])[:-1]
    cuts = np.array([piece.start for piece in pieces[1:]])
    near = np.abs(cuts - known[first]) <= _NEAR
    right = near | _in_its_pause(cuts, known[first], samples)
    print(json.dumps({
        "minutes": len(samples) / SAMPLE_RATE / 60, "words": len(words), "cuts": len(cuts), "right": right.mean(),
        "rejected": sum(bool(piece.problem) for piece in pieces),
        "near_start": near.mean(), "seconds": seconds,
        "wrong": np.stack([cuts, known[first]], axis=1)[~right].round(2).tolist(),
    }))  # fmt: skip


def _in_its_pause(cuts: np.ndarray, known: np.ndarray, samples: np.ndarray) -> np.ndarray:
    """bool [cuts]: inside of a pause that is near the known time."""
    begin, end = pauses(samples).T
    inside = (cuts[:, None] >= begin) & (cuts[:, None] <= end)
    near = (known[:, None] >= begin - _NEAR) & (known[:, None] <= end + _NEAR)
    return (inside & near).any(axis=1)


def _joined(lines: list[dict], options: argparse.Namespace) -> tuple[np.ndarray, list[Word]]:  # type: ignore[type-arg]
    """Samples, and words that last until the next."""
    parts: list[np.ndarray] = []
    starts: list[tuple[str, float]] = []
    at = 0.0
    for line in lines:
        samples, _ = audio.read(options.manifest.parent / line["audio"])
        starts += [(word, at + start) for segment in line["segments"] for word, start in segment["words"]]
        parts.append(samples)
        at += len(samples) / SAMPLE_RATE
        if at > 60 * options.minutes:
            break
    ends = [start for _, start in starts[1:]] + [at]
    return np.concatenate(parts), [Word(word, start, end) for (word, start), end in zip(starts, ends, strict=True)]


if __name__ == "__main__":
    main()
