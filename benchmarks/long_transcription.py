"""`caspi transcribe` of recordings of hours against the same speech in clips, and its memory.

    python benchmarks/long_transcription.py runs/demo/train/average runs/demo/corpus --hours 3

Joins clips of a corpus without pauses, with pauses of 0.3 to 0.8 s (one in twenty of 5 s), and with those filled by
noise; transcribes each in a process of its own. Prints a line for each: WER, words lost and doubled, highest memory.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile

from caspi.audio import SAMPLE_RATE
from caspi.corpus.store import Corpus
from caspi.inference.transcriber import Recording, Transcriber
from caspi.language import language
from caspi.scoring.error_rates import Score, score_corpus


def scored(reference: str, text: str, spoken: str) -> Score:
    return score_corpus([reference], [text], [reference], [language(spoken)])["leaderboard"]


def pause(draw: np.random.Generator, level: float) -> np.ndarray:
    seconds = 5.0 if draw.random() < 0.05 else draw.uniform(0.3, 0.8)
    return (level * draw.standard_normal(int(seconds * SAMPLE_RATE))).astype(np.float32)


def described(name: str, score: Score, clips: Score) -> str:
    return (
        f"{name}: WER {100 * score.wer:.2f} % ({100 * (score.wer - clips.wer):+.2f} points), "
        f"{score.deletions} words lost and {score.insertions} too many ({clips.deletions}, {clips.insertions} in clips)"
    )


def transcribed(model: str, samples: Sequence[np.ndarray], spoken: str, folder: Path) -> tuple[str, float, float]:
    """(text, seconds, highest memory in MiB) of the command line."""
    with soundfile.SoundFile(folder / "long.flac", "w", SAMPLE_RATE, 1) as file:
        for part in samples:
            file.write(part)
    began = time.monotonic()
    command = [sys.executable, "-m", "caspi", "transcribe", model, str(folder / "long.flac"), "--language", spoken]
    text = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, stderr=subprocess.DEVNULL).stdout
    return text, time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--hours", type=float, default=3.0)
    parser.add_argument("--split", default="train")
    options = parser.parse_args()
    corpus = Corpus.open(options.corpus, options.split)
    draw = np.random.default_rng(0)
    rows: list[int] = []
    seconds = 0.0
    while seconds < 3600 * options.hours:
        rows.append(int(draw.integers(len(corpus))))
        seconds += corpus.utterance(rows[-1]).seconds
    spoken = corpus.utterance(rows[0]).language
    reference = " ".join(corpus.utterance(row).text for row in rows)
    print(f"{len(rows):,} clips, {seconds / 3600:.2f} h")
    began = time.monotonic()
    texts: dict[int, str] = {}
    transcriber = Transcriber.of(options.model)
    for number, found in transcriber.transcribe_each(Recording(corpus.samples(row), spoken) for row in rows):
        texts[number] = found.text
    clips = scored(reference, " ".join(texts[number] for number in range(len(rows))), spoken)
    print(f"in clips: WER {100 * clips.wer:.2f} %, {time.monotonic() - began:.0f} s", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for name, level in (("without pauses", None), ("with silent pauses", 1e-4), ("with noisy pauses", 1e-2)):
            parts: list[np.ndarray] = []
            for row in rows:
                parts.append(corpus.samples(row))
                if level is not None:
                    parts.append(pause(draw, level))
            text, took, memory = transcribed(options.model, parts, spoken, Path(folder))
            length = sum(map(len, parts)) / SAMPLE_RATE / 3600
            score = scored(reference, text, spoken)
            print(f"{described(name, score, clips)}; {length:.2f} h in {took:.0f} s, {memory:.0f} MiB", flush=True)


if __name__ == "__main__":
    main()
