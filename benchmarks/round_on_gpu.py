"""Predicted against measured on this machine's GPUs: memory and seconds of a step, one stage after another.

    python benchmarks/round_on_gpu.py ROUND --tokenizer DIR [--processes 2] [--sharded] [key=value ...]

ROUND is a recipe of recipes/. Its stages run for some steps from random weights of the 1.7B, on noise of speech-like
lengths (log-normal around 8 s) with 4.4 tokens a second of Hebrew: what is computed is what real data would make it.
Predictions are those of the GPU table and, on one GPU, of `caspi plan --pilot`. Prints one JSON line a stage.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from transformers import Qwen3ASRForConditionalGeneration

from caspi import commands, recipe
from caspi.corpus.store import Corpus
from caspi.model.architectures import configuration
from caspi.model.loading import load_processor
from caspi.model.prompt import Prompt
from caspi.training import preflight
from caspi.training.costs import peak_memory
from caspi.training.data import TrainingSet
from caspi.training.estimates import estimate, gpus, recognised

ROOT = Path(__file__).parents[1]
_WARM_UP = 3  # steps that are not counted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("round")
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--sharded", action="store_true")
    parser.add_argument("--scale", default="1.7b")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--utterances", type=int, default=600)
    parser.add_argument("overrides", nargs="*")
    options = parser.parse_intermixed_args()
    with tempfile.TemporaryDirectory(prefix="caspi-bench-") as name:
        _random_start(Path(name) / "start", options.tokenizer, options.scale)
        made = _recipe(Path(name), options)
        commands.prepare(made)
        predicted = _predicted(made, options)
        path = Path(name) / "recipe.yaml"
        path.write_text(recipe.dump(made), encoding="utf-8")
        if options.processes == 1:
            planned = _run([sys.executable, "-m", "caspi", "plan", str(path), "--pilot", "--json"], {})
            for row, stage in zip(predicted, json.loads(planned)["stages"], strict=True):
                row["pilot_step_s"] = stage["hours"] * 3600 / stage["steps"]
                row["pilot_peak_gib"] = stage["pilot"]["peak"]
        launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={options.processes}"]
        sharding = _sharding() if options.sharded else {}
        _run([sys.executable, *(launch if options.processes > 1 else []), "-m", "caspi", "train", str(path)], sharding)
        log = (made.require_train().path / "metrics.jsonl").read_text().splitlines()
        for row in predicted:
            lines = [line for line in map(json.loads, log) if line["stage"] == row["stage"] and "loss" in line]
            seconds = [row["step_audio_s"] / line["audio_seconds_per_second"] for line in lines[_WARM_UP:] or lines]
            row |= {"step_s": float(np.median(seconds)), "peak_gib": lines[-1].get("peak_gib")}
            print(json.dumps(row), flush=True)


def _random_start(folder: Path, tokenizer: Path, scale: str) -> None:
    """A checkpoint of random weights in bf16, made on the GPU where there is one."""
    processor = load_processor(str(tokenizer))
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = Qwen3ASRForConditionalGeneration(configuration(scale, processor.tokenizer))
    model.to(torch.bfloat16).save_pretrained(folder)
    processor.save_pretrained(folder)


def _recipe(folder: Path, options: argparse.Namespace) -> recipe.Recipe:
    draw = np.random.default_rng(0)
    base = recipe.load(ROOT / "recipes" / f"{options.round}.yaml")
    longest = base.require_train().max_seconds
    words = (ROOT / "README.md").read_text(encoding="utf-8").split()
    words = [word for word in words if all("א" <= letter <= "ת" for letter in word)] or ["שלום", "עולם", "ילדים"]
    lines = []
    for number in range(options.utterances):
        seconds = float(np.clip(draw.lognormal(2.0, 0.5), 1, longest))
        soundfile.write(folder / f"{number}.wav", draw.standard_normal(int(seconds * 16_000)) * 0.1, 16_000)
        text = ""
        while len(text) < 12 * seconds:
            text += draw.choice(words) + " "
        split = "validation" if number < 8 else "train"
        lines.append((split, {"audio": f"{number}.wav", "text": text.strip(), "id": str(number)}))
    for split in ("train", "validation"):
        chosen = [json.dumps(line, ensure_ascii=False) for where, line in lines if where == split]
        (folder / f"{split}.jsonl").write_text("\n".join(chosen), encoding="utf-8")
    sources = [f"{{kind: manifest, name: {s}, path: {folder / s}.jsonl, split: {s}}}" for s in ("train", "validation")]
    config = base.require_train()
    epochs = [f"train.stages.{n}.epochs={options.steps * _batch(config) / (options.utterances - 8)}"
              for n in range(len(config.stages))]  # fmt: skip
    mixes = [f"train.stages.{n}.mix=null" for n in range(len(config.stages))]
    return recipe.load(
        ROOT / "recipes" / f"{options.round}.yaml",
        (
            f"corpus.path={folder / 'corpus'}", f"corpus.sources=[{', '.join(sources)}]", "corpus.evaluation=[]",
            "corpus.filters={max_seconds: 30, max_silence: 1, rate_deviations: 1000, max_repeats: 100000}",
            f"train.path={folder / 'train'}", "train.mixes={}", *mixes, *epochs, "train.log_every=1",
            "train.evaluate={every: 100000, utterances: 4}", "train.track=[]",
            f"model={{start: {folder / 'start'}}}", *options.overrides,
        ),
    )  # fmt: skip


def _batch(config: Any) -> int:
    return int(config.batch.utterances)


def _predicted(made: recipe.Recipe, options: argparse.Namespace) -> list[dict[str, Any]]:
    config = made.require_train()
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    kind = recognised(device, gpus())
    shape, stages = preflight.shapes(made.model, config)
    prompt = Prompt(load_processor(made.model.start).tokenizer)
    data = TrainingSet.of(Corpus.open(made.corpus.path, "train"), prompt, config.max_seconds)
    plans = preflight.planned(data, config, options.processes, made.seed)
    rows = []
    for stage, planned, plan in zip(config.stages, stages, plans, strict=True):
        shards = options.processes if options.sharded else 1
        rows.append(
            {
                "round": made.name, "stage": stage.name, "device": device,
                "processes": options.processes, "sharded": options.sharded, "overrides": options.overrides,
                "steps": plan.steps, "step_audio_s": float(plan.loads.seconds.sum()) / plan.steps,
                "predicted_peak_gib": float(peak_memory(shape, planned.learning, plan.loads, shards).max()),
                "predicted_step_s": estimate(shape, planned.learning, plan.loads, kind, options.processes).seconds
                / plan.steps if kind else None,
            }
        )  # fmt: skip
    return rows


def _sharding() -> dict[str, str]:
    """What accelerate launch makes of recipes/accelerate/fsdp2.yaml."""
    import yaml

    config = yaml.safe_load((ROOT / "recipes" / "accelerate" / "fsdp2.yaml").read_text())["fsdp_config"]
    names = {name.upper(): str(value).lower() for name, value in config.items()}
    for name in ("FSDP_AUTO_WRAP_POLICY", "FSDP_STATE_DICT_TYPE"):
        names[name] = names[name].upper()
    return {"ACCELERATE_USE_FSDP": "true", **names}


def _run(command: list[str], environment: dict[str, str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | environment)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-4000:]}")
    return done.stdout


if __name__ == "__main__":
    main()
