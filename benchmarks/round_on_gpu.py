"""Predictions against measurements on the GPUs of this machine: memory and seconds per step of each stage.

    python benchmarks/round_on_gpu.py ROUND --tokenizer DIR [--processes 2 --sharding none,fsdp2,zero3] [key=value ...]

ROUND is the name of a recipe in recipes/. Each stage runs for some steps from random weights of the 1.7B, on noise with
lengths like those of speech (log-normal around 8 s) and 4.4 tokens of Hebrew per second: the computation is the same as
for real data. A run is killed when its steps are logged, before it would save. With --leave it gets SIGTERM two steps
earlier, as in a preemption, and the seconds until it has saved and exited are printed too. Predictions are those of
the GPU table and, on one GPU, of `caspi plan --pilot`. --cap limits the memory of torch's allocator; `ran_out` counts
the micro-batches that had to be split. Prints one JSON line for each stage and kind of sharding.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from speechlike import FILTERS, HELD_OUT, clips, random_start, sources, watch

from caspi import commands, program, recipe
from caspi.corpus.store import Corpus
from caspi.model.loading import load_processor
from caspi.model.prompt import Prompt
from caspi.training.data.dataset import TrainingSet
from caspi.training.planning import shapes, stage_batches
from caspi.training.planning.costs import peak_memory
from caspi.training.planning.estimates import estimate, gpus, recognised

ROOT = Path(__file__).parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("round")
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--sharding", default="none", help="one or more of none, fsdp2 and zero3, separated by commas")
    parser.add_argument("--leave", action="store_true")
    parser.add_argument("--scale", default="1.7b")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--warm-up", type=int, default=4, help="number of first steps that are not counted")
    parser.add_argument("--utterances", type=int, default=600)
    parser.add_argument("--stages", nargs="+", help="stages of the recipe (default: all)")
    parser.add_argument("--clip-seconds", type=float, help="length of every clip, instead of log-normal lengths")
    parser.add_argument("--cap", type=float, help="GPU memory limit of each process in GB (10^9 bytes)")
    parser.add_argument("overrides", nargs="*")
    options = parser.parse_intermixed_args()
    with tempfile.TemporaryDirectory(prefix="caspi-bench-") as name:
        random_start(Path(name) / "start", options.tokenizer, options.scale)
        made = _recipe(Path(name), options)
        commands.prepare.run(made)
        for stage in made.require_train().stages:
            if options.stages and stage.name not in options.stages:
                continue
            alone = _only(made, stage.name)
            path = Path(name) / f"{stage.name}.yaml"
            path.write_text(recipe.dump(alone), encoding="utf-8")
            pilot = _pilot(path) if options.processes == 1 else {}
            for sharding in options.sharding.split(","):
                row = _predicted(alone, options, sharding) | pilot
                print(json.dumps(row | _measured(alone, path, options, sharding, row)), flush=True)


def _only(made: recipe.Recipe, stage: str) -> recipe.Recipe:
    config = made.require_train()
    stages = tuple(kept for kept in config.stages if kept.name == stage)
    return made.model_copy(update={"train": config.model_copy(update={"stages": stages})})


def _pilot(path: Path) -> dict[str, Any]:
    planned = [sys.executable, "-m", "caspi", "plan", str(path), "--pilot", "--json"]
    done = subprocess.run(planned, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(planned)} failed:\n{done.stderr[-4000:]}")
    [stage] = json.loads(done.stdout)["stages"]
    return {"pilot_step_s": stage["hours"] * 3600 / stage["steps"], "pilot_peak_gib": stage["pilot"]["peak"]}


def _measured(
    made: recipe.Recipe, path: Path, options: argparse.Namespace, sharding: str, predicted: dict[str, Any]
) -> dict[str, Any]:
    """Median seconds per step after the warm-up, and the peak memory, of a run that is ended at its last step."""
    run = made.require_train().path
    shutil.rmtree(run, ignore_errors=True)
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={options.processes}"]
    capped = [__file__, "capped", str(options.cap)] if options.cap else ["-m", "caspi"]
    command = [sys.executable, *(launch if options.processes > 1 else []), *capped, "train", str(path)]
    due = predicted["steps"] - 2 * options.leave
    watched = watch(command, run, due, leave=options.leave, environment=_environment(sharding))
    lines, left = watched.lines, {"left_after_s": watched.left_after} if options.leave else {}
    seconds = [predicted["step_audio_s"] / line["audio_seconds_per_second"] for line in lines[options.warm_up :]]
    quarters = np.percentile(seconds, [25, 50, 75]).tolist()
    ran_out = sum("out_of_memory" in line for line in (run / "metrics.jsonl").read_text("utf-8").splitlines())
    return {
        "step_s": quarters[1], "step_s_quarters": quarters[::2], "peak_gib": lines[-1].get("peak_gib"),
        "cap_gb": options.cap, "ran_out": ran_out, **left,
    }  # fmt: skip


def train_capped(gigabytes: float, arguments: list[str]) -> None:
    """Runs `caspi` with a limit on GPU memory."""
    for gpu in range(torch.cuda.device_count()):
        share = gigabytes * 1e9 / torch.cuda.get_device_properties(gpu).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, share), gpu)
    sys.argv = ["caspi", *arguments]
    program.main()


def _recipe(folder: Path, options: argparse.Namespace) -> recipe.Recipe:
    draw = np.random.default_rng(0)
    base = recipe.load(ROOT / "recipes" / f"{options.round}.yaml")
    longest = base.require_train().max_seconds
    seconds = np.clip(draw.lognormal(2.0, 0.5, options.utterances), 1, longest)
    if options.clip_seconds:
        seconds = np.full(options.utterances, options.clip_seconds)
    made = clips(folder, seconds.tolist())
    named = [override for override in options.overrides if override.startswith("train.effective_batch=")]
    batch = int(named[-1].partition("=")[2]) if named else base.require_train().batch.utterances
    assert batch is not None  # these recipes set effective_batch in utterances
    stages = base.require_train().stages
    epochs = [
        f"train.stages.{n}.epochs={options.steps * batch / (options.utterances - HELD_OUT)}" for n in range(len(stages))
    ]
    mixes = [f"train.stages.{n}.mix=null" for n in range(len(stages))]
    return recipe.load(
        ROOT / "recipes" / f"{options.round}.yaml",
        (
            f"corpus.path={folder / 'corpus'}", f"corpus.sources={sources(folder, made)}", "corpus.evaluation=[]",
            f"corpus.filters={FILTERS}",
            f"train.path={folder / 'train'}", "train.mixes={}", *mixes, *epochs, "train.log_every=1",
            "train.evaluate={every: 100000, utterances: 4}", "train.track=[]",
            f"model={{start: {folder / 'start'}}}", *options.overrides,
        ),
    )  # fmt: skip


def _predicted(made: recipe.Recipe, options: argparse.Namespace, sharding: str) -> dict[str, Any]:
    config = made.require_train()
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    kind = recognised(device, gpus())
    shape, [stage] = shapes.shapes(made.model, config)
    prompt = Prompt(load_processor(made.model.start).tokenizer)
    data = TrainingSet.to_train_on(Corpus.open(made.corpus.path, "train"), prompt, config, made.seed)
    [plan] = stage_batches.planned(data, config, options.processes, made.seed)
    shards = 1 if sharding == "none" else options.processes
    seconds = estimate(shape, stage.learning, plan.loads, kind, options.processes).seconds if kind else None
    return {
        "round": made.name, "stage": config.stages[0].name, "device": device,
        "processes": options.processes, "sharding": sharding, "overrides": options.overrides,
        "steps": plan.steps, "step_audio_s": float(plan.loads.seconds.sum()) / plan.steps,
        "micro_batch_audio_s": float(plan.loads.seconds.mean()),
        "predicted_peak_gib": float(peak_memory(shape, stage.learning, plan.loads, shards).max()),
        "predicted_step_s": seconds / plan.steps if seconds else None,
    }  # fmt: skip


def _environment(sharding: str) -> dict[str, str]:
    """The environment variables that accelerate launch sets for a file of recipes/accelerate."""
    if sharding == "none":
        return {}
    config = yaml.safe_load((ROOT / "recipes" / "accelerate" / f"{sharding}.yaml").read_text())
    kind = "fsdp" if sharding == "fsdp2" else "deepspeed"
    asked = {name.upper(): str(value).lower() for name, value in config[f"{kind}_config"].items()}
    if kind == "deepspeed":
        return {"ACCELERATE_USE_DEEPSPEED": "true", **{f"ACCELERATE_DEEPSPEED_{k}": v for k, v in asked.items()}}
    for name in ("FSDP_AUTO_WRAP_POLICY", "FSDP_STATE_DICT_TYPE"):
        asked[name] = asked[name].upper()
    return {"ACCELERATE_USE_FSDP": "true", **asked}


if __name__ == "__main__":
    if sys.argv[1:2] == ["capped"]:
        train_capped(float(sys.argv[2]), sys.argv[3:])
    else:
        main()
