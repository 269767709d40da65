"""Kills a training run at fifty random times and compares its weights with those of an uninterrupted run.

    python benchmarks/kill_training.py [--kills 50] [--signal KILL]

A few hundred synthetic utterances, two stages, augmentation on, a checkpoint every two steps. The same command is
started again and again until it finishes. Each start is killed after a random time, every third one while a checkpoint
is being written. Prints how many kills happened in which phase, and whether the weights are bit-identical.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch
from safetensors.torch import load_file

from caspi import commands, recipe
from caspi.training.checkpoint import files as checkpoints

RECIPE = Path(__file__).parents[1] / "recipes" / "demo.yaml"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--signal", choices=("KILL", "TERM"), default="KILL")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="caspi-bench-") as name:
        folder = Path(name)
        calm, killed = folder / "calm", folder / "killed"
        commands.prepare.run(_recipe(folder, calm))
        commands.train.run(_recipe(folder, calm))
        path = folder / "killed.yaml"
        path.write_text(recipe.dump(_recipe(folder, killed)), encoding="utf-8")
        draw = random.Random(0)
        fell: Counter[str] = Counter()
        starts = 0
        while sum(fell.values()) < options.kills:
            starts += 1
            fell[_start_and_kill(path, killed, draw, options.signal, sum(fell.values()) % 3 == 2)] += 1
            if fell.pop("after the end", 0):  # it finished before the kill: repeat from the middle of the last stage
                (killed / "report.json").unlink()
                (killed / "2-all" / "stage.json").unlink()
                for found in checkpoints.complete_checkpoints(killed / "2-all")[1:]:
                    subprocess.run(["rm", "-r", str(found)], check=True)
        while not (killed / "report.json").exists():
            subprocess.run([sys.executable, "-m", "caspi", "train", str(path)], check=False, capture_output=True)
        one, other = _weights(calm), _weights(killed)
        same = all(torch.equal(one[name], other[name]) for name in one)
        print(
            f"{sum(fell.values())} kills in {starts} starts: {dict(fell)}; weights {'identical' if same else 'DIFFER'}"
        )
        raise SystemExit(0 if same else 1)


def _recipe(folder: Path, run: Path) -> recipe.Recipe:
    return recipe.load(
        RECIPE,
        (
            f"corpus.path={folder / 'corpus'}", f"train.path={run}", "corpus.sources.0.utterances=240",
            "corpus.sources.1.utterances=8", "corpus.sources.2.utterances=12", "train.effective_batch=8",
            "train.stages.0.epochs=0.5", "train.stages.1.epochs=1", "train.evaluate.every=2",
            "train.evaluate.utterances=4", "train.log_every=1",
        ),
    )  # fmt: skip


def _start_and_kill(path: Path, run: Path, draw: random.Random, how: str, while_saving: bool) -> str:
    process = subprocess.Popen(
        [sys.executable, "-m", "caspi", "train", str(path)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    started, wait = time.monotonic(), draw.uniform(3.0, 14.0)
    while process.poll() is None:
        late = time.monotonic() - started > wait
        if (late and not while_saving) or (late and while_saving and any(run.glob("*/.partial/*/*"))):
            break
        time.sleep(0.001)
    if process.poll() is not None:
        stderr = (process.communicate()[1] or b"").decode()
        if process.returncode:
            raise SystemExit(f"the command failed to resume: {stderr[-2000:]}")
        return "after the end"
    where = _where(run)
    os.killpg(process.pid, getattr(signal, f"SIG{how}"))
    process.communicate()
    return where


def _where(run: Path) -> str:
    if any(run.glob("*/.partial/*")):
        return "while saving"
    if not any(run.glob("*/checkpoint-*")):
        return "before the first checkpoint"
    return "in the second stage" if any(run.glob("2-*/checkpoint-*")) else "in the first stage"


def _weights(run: Path) -> dict[str, torch.Tensor]:
    final = Path(json.loads((run / "report.json").read_text())["final"])
    return load_file(final / "model.safetensors")


if __name__ == "__main__":
    main()
