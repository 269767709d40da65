"""Decoding speed in seconds of audio per second: caspi against plain `generate`, with batches of 1 and 16 clips.

    python benchmarks/decode_throughput.py MODEL CORPUS [--split test] [--clips 200] [--rounds 3]

CORPUS: a corpus folder or a manifest.

All three decode the same clips of a corpus greedily with the same weights and with the language given; on a CPU in
fp32, on a GPU in bf16. The baseline is transformers' processor and `generate`, with batches in the order of the corpus.
Prints one JSON line, with the share of clips whose text is the same, and every way's WER.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from typing import Any

import numpy as np
import torch
from transformers import AutoProcessor, Qwen3ASRForConditionalGeneration

from caspi.audio import SAMPLE_RATE
from caspi.commands.evaluate import open_sets
from caspi.corpus.store import Corpus
from caspi.evaluation.pairs import TranscriptPair
from caspi.evaluation.summary import ScoredPairs, summarise
from caspi.inference.engine.requests import TOKENS_AT_LEAST, TOKENS_PER_SECOND_LIMIT
from caspi.inference.transcriber import Recording, Transcriber
from caspi.model.config import ModelConfig
from caspi.model.loading import load, resolve


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("corpus")
    parser.add_argument("--split", choices=["train", "validation", "test"], default="test")
    parser.add_argument("--clips", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    [corpus] = open_sets(options.corpus, options.split)
    rows = range(min(options.clips, len(corpus)))
    clips, spoken = [corpus.samples(row) for row in rows], corpus.utterance(0).language
    seconds = sum(map(len, clips)) / SAMPLE_RATE
    device = "cuda" if torch.cuda.is_available() else "cpu"
    plain = _Plain(options.model, spoken, device)
    ours = Transcriber.of(options.model)
    speeds: dict[str, list[float]] = {"ours": [], "batch_1": [], "batch_16": []}
    texts: dict[str, list[str]] = {}
    for _ in range(options.rounds):
        for name, found in speeds.items():
            started = time.perf_counter()
            if name == "ours":
                recordings = [Recording(clip, spoken) for clip in clips]
                texts[name] = [transcript.text for transcript in ours.transcribe(recordings)]
            else:
                texts[name] = plain(clips, int(name.removeprefix("batch_")))
            found.append(seconds / (time.perf_counter() - started))
            print(f"{name}: {found[-1]:.1f} times real time", file=sys.stderr, flush=True)
    medians = {name: statistics.median(found) for name, found in speeds.items()}
    print(json.dumps({
        "model": options.model, "clips": len(clips), "seconds": seconds, "device": device, "rtfx": medians,
        "rounds": speeds, "ratio": {n: medians["ours"] / medians[n] for n in ("batch_1", "batch_16")},
        "same_text": {n: _share(texts["ours"], texts[n]) for n in ("batch_1", "batch_16")},
        "wer": {name: _wer(corpus, found) for name, found in texts.items()}, "torch": torch.__version__,
    }))  # fmt: skip


def _wer(corpus: Corpus, texts: list[str]) -> float:
    pairs = []
    for row, text in enumerate(texts):
        spoken = corpus.utterance(row)
        pairs.append(TranscriptPair(spoken.id, spoken.text, text, language=spoken.language))
    return summarise(ScoredPairs.of(pairs)).leaderboard.wer


def _share(one: list[str], other: list[str]) -> float:
    return sum(a == b for a, b in zip(one, other, strict=True)) / len(one)


class _Plain:
    """transformers, used as in its documentation."""

    def __init__(self, model: str, spoken: str, device: str) -> None:
        where = resolve(model)
        self._processor: Any = AutoProcessor.from_pretrained(where)
        dtype = torch.bfloat16 if device == "cuda" else torch.float32
        self._model = Qwen3ASRForConditionalGeneration.from_pretrained(where, dtype=dtype).to(device).eval()
        self._prompt = load(ModelConfig(start=model)).prompt
        user = [{"role": "user", "content": [{"type": "audio", "audio": ""}]}]
        prompt = self._processor.apply_chat_template(user, add_generation_prompt=True, tokenize=False)
        self._text = f"{prompt}language {spoken}<asr_text>"
        self._given = self._prompt.language_prefix(spoken)

    @torch.inference_mode()
    def __call__(self, clips: list[np.ndarray], batch: int) -> list[str]:
        hypotheses = []
        for start in range(0, len(clips), batch):
            part = clips[start : start + batch]
            longest = max(map(len, part)) / SAMPLE_RATE
            inputs = self._processor(text=[self._text] * len(part), audio=part, padding=True, return_tensors="pt")
            inputs = inputs.to(self._model.device, self._model.dtype)
            tokens = self._model.generate(
                **inputs, max_new_tokens=TOKENS_AT_LEAST + int(np.ceil(TOKENS_PER_SECOND_LIMIT * longest)),
                do_sample=False, eos_token_id=self._prompt.end, pad_token_id=self._prompt.pad,
            )  # fmt: skip
            new = tokens[:, inputs["input_ids"].shape[1] :].tolist()
            hypotheses += [self._prompt.parse(self._given + row)[1] for row in new]
        return hypotheses


if __name__ == "__main__":
    main()
