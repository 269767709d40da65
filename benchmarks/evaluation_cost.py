"""What an evaluation costs: during training, and on one GPU against all of this machine.

    python benchmarks/evaluation_cost.py --tokenizer DIR [--scale 1.7b] [--count 4096] [--only training|gpus]

`training`: the first stage of recipes/round2.yaml from random weights, on noise with lengths like those of speech, with
evaluations of 400 clips: seconds of a step and of an evaluation, and the share of the time that an evaluation every 500
steps takes. `gpus`: `caspi evaluate` on half of the clips and on all of them, on one GPU and on all: seconds of
decoding, and how much faster all GPUs decode the second half (`ratio`), which leaves out that every process loads the
model; `ratio_of_whole` has it. Random weights never end a text: during training every clip takes the 4.4 tokens a
second of Hebrew speech, in `gpus` the most that are allowed. Prints one JSON line for each part.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from speechlike import FILTERS, clips, random_start, sources, watch

from caspi import commands, program, recipe
from caspi.corpus.store import Corpus
from caspi.inference.engine import requests
from caspi.recipe import Recipe

ROOT = Path(__file__).parents[1]
_ONE_GPU = {"CUDA_VISIBLE_DEVICES": "0"}
_HELD_OUT = 400
_TOKENS_PER_SECOND = 4.4
_EVERY = 500  # steps between evaluations, of round2
_STEPS, _EVALUATED, _WARM_UP = 40, 12, 5
_WATCHED = 26  # steps until the run is ended: two evaluations


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--scale", default="1.7b")
    parser.add_argument("--count", type=int, default=4096, help="clips")
    parser.add_argument("--only", choices=["training", "gpus"])
    parser.add_argument("overrides", nargs="*", help="of the recipe, key=value")
    options = parser.parse_intermixed_args()
    with tempfile.TemporaryDirectory(prefix="caspi-bench-") as name:
        folder = Path(name)
        made = _prepared(folder, options)
        if options.only != "gpus":
            print(json.dumps(_training(folder, made)), flush=True)
        if options.only != "training":
            print(json.dumps(_gpus(folder, made, options.count)), flush=True)


def _prepared(folder: Path, options: argparse.Namespace) -> Recipe:
    draw = np.random.default_rng(0)
    seconds = np.clip(draw.lognormal(2.0, 0.5, options.count + _HELD_OUT), 1, 15)
    random_start(folder / "start", options.tokenizer, options.scale)
    base = ROOT / "recipes" / "round2.yaml"
    batch = recipe.load(base).require_train().batch.utterances
    assert batch is not None  # the recipe sets effective_batch in utterances
    made = recipe.load(
        base,
        (
            f"corpus.path={folder / 'corpus'}", f"corpus.filters={FILTERS}", "corpus.evaluation=[]",
            f"corpus.sources={sources(folder, clips(folder, seconds.tolist()), held_out=_HELD_OUT)}",
            f"train.path={folder / 'train'}", "train.log_every=1", "train.track=[]",
            f"train.evaluate.every={_EVALUATED}", f"train.stages.0.epochs={_STEPS * batch / options.count}",
            f"model={{start: {folder / 'start'}}}", *options.overrides,
        ),
    )  # fmt: skip
    commands.prepare.run(made)
    config = made.require_train()
    return made.model_copy(update={"train": config.model_copy(update={"stages": config.stages[:1]})})


def _training(folder: Path, made: Recipe) -> dict[str, Any]:
    path = folder / "round2.yaml"
    path.write_text(recipe.dump(made), encoding="utf-8")
    config = made.require_train()
    command = [sys.executable, __file__, "train", str(path)]
    steps = watch(command, config.path, _WATCHED, environment=_ONE_GPU).lines
    lines = [json.loads(line) for line in (config.path / "metrics.jsonl").read_text("utf-8").splitlines()]
    evaluations = [line["evaluation_seconds"] for line in lines if "evaluation_seconds" in line]
    usual = [line for line in steps[_WARM_UP:] if line["step"] % _EVALUATED != 1]  # others count the evaluation
    corpus = Corpus.open(made.corpus.path, "train")
    audio = float(corpus.numbers("seconds").mean()) * (config.batch.utterances or 0)
    step = audio / statistics.median(line["audio_seconds_per_second"] for line in usual)
    shares = [seconds / (_EVERY * step + seconds) for seconds in evaluations]
    return {"step_s": step, "step_audio_s": audio, "evaluation_s": evaluations, "share": shares}


def _gpus(folder: Path, made: Recipe, count: int) -> dict[str, Any]:
    seconds: dict[str, list[float]] = {"one": [], "all": []}
    for name, found in seconds.items():
        for limit in (count // 2, count):
            out = folder / f"evaluation-{name}-{limit}"
            corpus, model = str(made.corpus.path), str(folder / "start")
            options = ["--split", "train", "--limit", str(limit), "--out", str(out)]
            _caspi("evaluate", model, corpus, *options, environment=_ONE_GPU if name == "one" else {})
            found.append(json.loads((out / "summary.json").read_text("utf-8"))["decode_seconds"])
            print(f"{name}, {limit} clips: {found[-1]:.1f} s", file=sys.stderr, flush=True)
    one, all_gpus = seconds["one"], seconds["all"]
    return {
        "gpus": torch.cuda.device_count(), "clips": count, "decode_s": seconds,
        "ratio": (one[1] - one[0]) / (all_gpus[1] - all_gpus[0]), "ratio_of_whole": one[1] / all_gpus[1],
    }  # fmt: skip


def _caspi(*arguments: str, environment: dict[str, str]) -> None:
    command = [sys.executable, "-m", "caspi", *arguments]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"caspi {' '.join(arguments)} failed:\n{done.stderr[-4000:]}")


def _train_like_speech() -> None:
    """`caspi train` with texts of the evaluations as long as those of speech."""
    requests.TOKENS_AT_LEAST, requests.TOKENS_PER_SECOND_LIMIT = 0, _TOKENS_PER_SECOND
    program.main()


if __name__ == "__main__":
    if sys.argv[1:2] == ["train"]:
        _train_like_speech()
    else:
        main()
