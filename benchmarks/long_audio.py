"""Word error rate of a long recording against that of the clips it is made of.

    python benchmarks/long_audio.py MODEL CORPUS [--split test] [--minutes 10] [--windows 6 10 15 30]

Clips of a corpus, in order, are decoded one by one. Then they are joined into one recording, with pauses of 0.3 to
0.8 s as quiet as those of a good microphone, and decoded in the model's default windows and in windows of other
lengths. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from caspi.audio import SAMPLE_RATE
from caspi.corpus.store import Corpus
from caspi.inference.transcriber import Recording, Transcriber
from caspi.language import language
from caspi.model.config import ModelConfig
from caspi.model.loading import load
from caspi.scoring.error_rates import score_corpus

_FLOOR = 1e-4  # noise level of pauses relative to full scale: -80 dB


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--split", choices=["train", "validation", "test"], default="test")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--windows", type=float, nargs="*", default=[])
    options = parser.parse_args()
    corpus = Corpus.open(options.corpus, options.split)
    draw = np.random.default_rng(0)
    clips: list[np.ndarray] = []
    pieces: list[np.ndarray] = []
    while sum(map(len, pieces)) < options.minutes * 60 * SAMPLE_RATE and len(clips) < len(corpus):
        clips.append(corpus.samples(len(clips)))
        pause = draw.standard_normal(int(draw.uniform(0.3, 0.8) * SAMPLE_RATE)) * _FLOOR
        pieces += [clips[-1], pause.astype(np.float32)]
    texts, spoken = corpus.column("text")[: len(clips)], corpus.utterance(0).language
    loaded = load(ModelConfig(start=options.model))
    found = {"clips": _wer(" ".join(_said(Transcriber(loaded), clips, spoken)), texts, spoken)}
    for window in (None, *options.windows):
        if window is not None:
            loaded.model.config.max_clip_seconds = window
        said = _said(Transcriber(loaded), [np.concatenate(pieces)], spoken)
        found["its own windows" if window is None else f"{window:g} s"] = _wer(said[0], texts, spoken)
    minutes = sum(map(len, pieces)) / SAMPLE_RATE / 60
    print(json.dumps({"model": options.model, "clips": len(clips), "minutes": minutes, "wer": found}))


def _said(transcriber: Transcriber, recordings: list[np.ndarray], spoken: str) -> list[str]:
    return [one.text for one in transcriber.transcribe([Recording(samples, spoken) for samples in recordings])]


def _wer(said: str, texts: list[str], spoken: str) -> float:
    return score_corpus([" ".join(texts)], [said], ["all"], [language(spoken)])["leaderboard"].wer


if __name__ == "__main__":
    main()
