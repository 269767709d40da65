"""Predictions of `caspi plan` for the recipes on several machines, without their data: prints a table of docs/plan.md.

    python benchmarks/plan_rounds.py --tokenizer DIR

The data sets are gated, so lengths are drawn at random: crowd-transcribe 300 h in 190,000 clips (log-normal),
crowd-recital 50 h and the Knesset 4,700 h packed to between 0.6 and 1 times a recipe's longest utterance; 4.4 target
tokens per second.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from caspi import recipe
from caspi.model.config import ModelConfig
from caspi.model.loading import load_processor
from caspi.model.prompt import Prompt
from caspi.recipe import Recipe
from caspi.training.data.dataset import TrainingSet
from caspi.training.data.epoch_lengths import EpochLengths
from caspi.training.data.stage_plan import plan_stage
from caspi.training.planning import shapes
from caspi.training.planning.costs import MicroBatchLoads, peak_memory
from caspi.training.planning.estimates import ALLOCATOR, changes_that_fit, estimate, gpus

ROOT = Path(__file__).parents[1]
_HOURS = {"crowd-transcribe": 300, "crowd-recital": 50, "knesset": 4700}
_MACHINES = (("a100-40gb", 8), ("a100-40gb", 2), ("h100", 1), ("h200", 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--rounds", nargs="*", default=["round1", "round2", "round3", "lora"])
    options = parser.parse_args()
    prompt = Prompt(load_processor(str(options.tokenizer)).tokenizer)
    print("| recipe | machine | stage | steps | peak GiB | fits | hours | cost $ | overrides that fit |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name in options.rounds:
        made = recipe.load(ROOT / "recipes" / f"{name}.yaml")
        data = _lengths(made, prompt)
        for gpu, count in _MACHINES:
            for row in _rows(made, data, gpu, count):
                print("| " + " | ".join(row) + " |", flush=True)


def _lengths(made: Recipe, prompt: Prompt) -> TrainingSet:
    config, draw = made.require_train(), np.random.default_rng(0)
    longest = config.max_seconds
    sources = ["crowd-transcribe", "crowd-recital"] + (["knesset"] if "knesset" in _source_names(made) else [])
    seconds, names = [], []
    for source in sources:
        if source == "crowd-transcribe":
            drawn = np.clip(draw.lognormal(np.log(300 * 3600 / 190_000) - 0.18, 0.6, 190_000), 0.5, longest)
        else:
            drawn = draw.uniform(0.6 * longest, longest, int(_HOURS[source] * 3600 / (0.8 * longest)))
        seconds.append(drawn)
        names += [source] * len(drawn)
    lengths = np.concatenate(seconds)
    target = np.ceil(lengths * 4.4).astype(np.int64) + 5
    around = len(prompt.prefix(0)) + (75 if config.previous_text else 0)  # 200 characters of previous text
    return TrainingSet(
        corpus=None, rows=np.arange(len(lengths)), ids=[], seconds=lengths, texts=[], languages=[],
        contexts=[], previous=[], sources=names, target_tokens=target,
        plain=EpochLengths.of(lengths, around + target),
    )  # type: ignore[arg-type]  # fmt: skip


def _source_names(made: Recipe) -> list[str]:
    return [getattr(source, "name", None) or "" for source in made.corpus.sources]


def _rows(made: Recipe, data: TrainingSet, gpu: str, count: int) -> list[list[str]]:
    config, kind = made.require_train(), gpus()[gpu]
    start = ModelConfig(start="Qwen/Qwen3-ASR-1.7B-hf", init="random", scale="1.7b")
    shape, stages = shapes.shapes(start, config)
    found: list[list[str]] = []
    for number, (stage, planned) in enumerate(zip(config.stages, stages, strict=True)):
        plans, steps = plan_stage(data, config, stage, count, number)
        loads = MicroBatchLoads.of(data, plans, steps)
        peak = float(peak_memory(shape, planned.learning, loads).max())
        hours = estimate(shape, planned.learning, loads, kind, count).seconds / 3600
        fits = peak + ALLOCATOR <= kind.memory
        changes = (
            [] if fits else changes_that_fit(shape, planned.learning, loads, config, kind.memory - ALLOCATOR, count)
        )
        found.append(
            [
                made.name, f"{count} x {gpu}", stage.name, f"{steps:,}", f"{peak:.1f}", "yes" if fits else "no",
                f"{hours:.1f}", f"{hours * kind.price * count:,.0f}", "; ".join(changes),
            ]
        )  # fmt: skip
    return found


if __name__ == "__main__":
    main()
