"""How fast `caspi audit` measures a sample: an aligner and a recogniser of random weights on noise.

    python benchmarks/audit_rate.py --tokenizer DIR [--scale 1.7b] [--aligner-scale 0.6b] [--count 4096]

The lengths of clips and texts are those of Hebrew speech. Random weights never end a text, so that every clip takes the
4.4 tokens a second of such speech; nor do they identify a language: the right one is taken for it. Measured is what the
audit does with its sample, faults included, after a first pass over a quarter of it. Prints one JSON line: seconds of
sampled audio measured per second, the minutes that 100 hours take, and the seconds of the parts.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from speechlike import FILTERS, clips, random_start, sources

from caspi import commands, recipe
from caspi.alignment.align import Aligner
from caspi.audit.measurements import measurements
from caspi.audit.sampling import Sampling, sample
from caspi.audit.signals import Listeners, Recogniser
from caspi.corpus.store import Corpus
from caspi.inference import window_decoder
from caspi.inference.engine import requests
from caspi.inference.transcriber import Transcriber
from caspi.inference.transcripts import Transcript
from caspi.model.aligner import load_aligner
from caspi.model.config import ModelConfig

_TOKENS_PER_SECOND = 4.4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--scale", default="1.7b")
    parser.add_argument("--aligner-scale", default="0.6b")
    parser.add_argument("--count", type=int, default=4096, help="clips")
    options = parser.parse_args()
    requests.TOKENS_AT_LEAST, requests.TOKENS_PER_SECOND_LIMIT = 0, _TOKENS_PER_SECOND
    window_decoder._SHORTEST_SPLIT = math.inf  # a text at the limit is not decoded again in halves
    Transcriber.transcribe = _in_hebrew(Transcriber.transcribe)
    with tempfile.TemporaryDirectory(prefix="caspi-bench-") as name:
        folder = Path(name)
        corpus = _corpus(folder, options.count)
        random_start(folder / "recogniser", options.tokenizer, options.scale)
        _random_aligner(folder / "aligner", options.tokenizer, options.aligner_scale)
        listeners = Listeners(
            Aligner.of(str(folder / "aligner")), [Recogniser.of(str(folder / "recogniser"), "")]
        )  # fmt: skip
        _measured(corpus, listeners, options.count // 4, folder / "warm-up.jsonl")
        taken: defaultdict[str, float] = defaultdict(float)
        for owner, method in ((Aligner, "align"), (Recogniser, "heard"), (Recogniser, "losses")):
            setattr(owner, method, _timed(getattr(owner, method), taken, method))
        seconds, audio, faults = _measured(corpus, listeners, options.count, folder / "signals.jsonl")
    rate = audio / seconds
    print(json.dumps({
        "audio_s": audio, "seconds": seconds, "rate": rate, "minutes_for_100_hours": 100 * 3600 / rate / 60,
        "clips": options.count, "faults": faults, "parts_s": dict(taken),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu", "torch": torch.__version__,
    }))  # fmt: skip


def _in_hebrew(transcribe: Callable[..., list[Transcript]]) -> Callable[..., list[Transcript]]:
    def identified(*arguments: Any) -> list[Transcript]:
        return [replace(one, language="Hebrew") for one in transcribe(*arguments)]

    return identified


def _corpus(folder: Path, count: int) -> Corpus:
    seconds = np.clip(np.random.default_rng(0).lognormal(2.0, 0.5, count), 1, 15)
    made = sources(folder, clips(folder, seconds.tolist()), held_out=0)
    commands.prepare.run(
        recipe.load(
            Path(__file__).parents[1] / "recipes" / "round2.yaml",
            (f"corpus.path={folder / 'corpus'}", f"corpus.filters={FILTERS}", "corpus.evaluation=[]",
             f"corpus.sources={made}"),
        )
    )  # fmt: skip
    return Corpus.open(folder / "corpus", "train")


def _random_aligner(folder: Path, tokenizer: Path, scale: str) -> None:
    config = ModelConfig(task="align", aligner="letters", start=str(tokenizer), init="random", scale=scale)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        loaded = load_aligner(config)
    loaded.model.to(torch.bfloat16).save_pretrained(folder)
    loaded.processor.save_pretrained(folder)


def _measured(corpus: Corpus, listeners: Listeners, count: int, cache: Path) -> tuple[float, float, int]:
    """Seconds taken, seconds of audio in the sample, and the number of faults made."""
    rows = sample(corpus, Sampling(share=1e-9, at_least=count))
    began = time.monotonic()
    _, made = measurements(corpus, rows, listeners, cache, seed=0)
    return time.monotonic() - began, float(corpus.numbers("seconds")[[one.row for one in rows]].sum()), len(made)


def _timed(method: Callable[..., Any], taken: dict[str, float], name: str) -> Callable[..., Any]:
    def timed(*arguments: Any) -> Any:
        began = time.monotonic()
        found = method(*arguments)
        taken[name] += time.monotonic() - began
        return found

    return timed


if __name__ == "__main__":
    main()
