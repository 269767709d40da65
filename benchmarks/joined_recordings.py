"""Recordings joined from the clips of a corpus, with their segments, and a recipe that trains on windows of them.

    python benchmarks/joined_recordings.py runs/demo/corpus --out /tmp/joined --hours 6
    caspi prepare /tmp/joined/recipe.yaml && caspi train /tmp/joined/recipe.yaml model.start=runs/demo/train/average

The demo's model has heard single sentences only; this one hears windows of any length with several of them, which may
begin and end inside of a sentence, as models for real recordings do. Pauses are of 0.1 to 0.8 s, a third of them of no
length at all, and have the noise of microphones from good to bad.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import soundfile

from caspi.audio import SAMPLE_RATE
from caspi.corpus.store import Corpus
from caspi.corpus.utterance import Utterance

RECIPE = """\
name: joined
language: Hebrew
corpus:
  path: {out}/corpus
  segmentation: {{by: pack, max_seconds: {longest}}}
  sources:
    - {{kind: manifest, path: {out}/train.jsonl, split: train}}
    - {{kind: manifest, path: {out}/validation.jsonl, split: validation}}
  filters: {{min_seconds: 0.5, max_seconds: {longest}}}
model: {{start: tiny}}
train:
  path: {out}/train
  effective_batch: 32
  max_batch_seconds: 240
  max_seconds: {longest}
  augment:
    silence: {{seconds: [0.0, 0.5], probability: 0.6}}
    spec_augment: {{frequency_masks: 2, frequency_width: 16, time_masks: 2, time_width: 12, time_share: 0.1}}
    gain_db: [-12, 3]
    noise: {{snr_db: [15, 50]}}
  evaluate: {{every: 100, utterances: 100, keep: 1}}
  log_every: 10
  stages:
    - name: all
      epochs: 5
      optimizer: normuon
      groups: {{audio_front: 5e-4, audio_layers: 2e-3, projector: 1e-3, decoder_layers: 2e-3, embeddings: 1e-3}}
      schedule: {{kind: cosine, warmup_ratio: 0.05}}
"""


def parts_of(said: Utterance, at: float, seconds: float, draw: np.random.Generator) -> list[dict[str, object]]:
    """The segments of a sentence: itself, or two that meet between words."""
    words = said.words
    if len(words) < 3 or draw.random() < 0.5:
        return [{"start": at, "end": at + seconds, "text": said.text}]
    cut = int(draw.integers(1, len(words)))
    middle = at + (words[cut - 1].end + words[cut].start) / 2
    texts = said.text.split()
    return [
        {"start": at, "end": middle, "text": " ".join(texts[:cut])},
        {"start": middle, "end": at + seconds, "text": " ".join(texts[cut:])},
    ]


def joined(corpus: Corpus, seconds: float, draw: np.random.Generator) -> tuple[np.ndarray, list[dict[str, object]]]:
    """A recording of about this length, and its segments."""
    level = 10 ** draw.uniform(-4, -2)
    parts: list[np.ndarray] = []
    segments: list[dict[str, object]] = []
    at = 0
    while at < seconds * SAMPLE_RATE:
        row = int(draw.integers(len(corpus)))
        sound = corpus.samples(row)
        segments += parts_of(corpus.utterance(row), at / SAMPLE_RATE, len(sound) / SAMPLE_RATE, draw)
        pause = 0 if draw.random() < 1 / 3 else int(draw.uniform(0.1, 0.8) * SAMPLE_RATE)
        parts += [sound, np.zeros(pause, np.float32)]
        at += len(sound) + pause
    samples = np.concatenate(parts)
    return samples + (level * draw.standard_normal(len(samples))).astype(np.float32), segments


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--hours", type=float, default=6.0)
    parser.add_argument("--longest", type=float, default=12.0)
    options = parser.parse_args()
    draw = np.random.default_rng(0)
    options.out.mkdir(parents=True)
    for split, hours in (("train", options.hours), ("validation", 0.2)):
        corpus = Corpus.open(options.corpus, split)
        with (options.out / f"{split}.jsonl").open("w", encoding="utf-8") as manifest:
            for number in range(int(hours * 260)):
                samples, segments = joined(corpus, draw.uniform(1.0, 24.0), draw)
                name = f"{split}-{number}.flac"
                soundfile.write(options.out / name, samples, SAMPLE_RATE)
                manifest.write(json.dumps({"audio": name, "segments": segments}, ensure_ascii=False) + "\n")
    (options.out / "recipe.yaml").write_text(RECIPE.format(out=options.out, longest=options.longest), encoding="utf-8")


if __name__ == "__main__":
    main()
