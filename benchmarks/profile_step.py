"""Time of a training step by part: data, features, encoder, projector, decoder, head, backward, optimizer, idle.

    python benchmarks/profile_step.py --tokenizer DIR [--scale tiny] [--clips uniform|lognormal] [key=value ...]

The steps do the same computation as those of `caspi train` on the corpus of benchmarks/train_throughput.py, but one
part after the other; real training fetches and copies the next step at the same time, and waits for the device once.
Marks on the device's clock (events on a GPU, the process's clock elsewhere) separate the parts, so each part includes
its waiting. The head's gradient is computed together with its loss and counted there. `idle` is, on a GPU, the share of
a step in which no kernel ran (torch's profiler, other steps); on a CPU, the idle share of all cores. Prints median
milliseconds per step and the ten kernels or operators that took most time.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from train_throughput import add_corpus_options, idle_times, prepared

from caspi.corpus.store import Corpus
from caspi.model.tensors import to_device
from caspi.training.data.dataset import TrainingSet
from caspi.training.data.loader import loader
from caspi.training.data.stage_plan import plan_stage
from caspi.training.data.steps import OptimizerStep, PlannedSteps
from caspi.training.distributed.processes import compute_dtype
from caspi.training.objectives.cross_entropy import CrossEntropy
from caspi.training.optim import build
from caspi.training.stage_setup import load_for_stage

PARTS = ("data", "features", "encoder", "projector", "decoder", "head", "backward", "optimizer")


class Marks:
    """Timestamps on the device's clock, each with the part that ends at it."""

    def __init__(self, device: torch.device) -> None:
        self._gpu = device.type == "cuda"
        self._found: list[tuple[str, Any]] = []

    def mark(self, part: str) -> None:
        """Ends `part`, which began at the previous mark."""
        if self._gpu:
            moment: Any = torch.cuda.Event(enable_timing=True)
            moment.record()
        else:
            moment = time.perf_counter()
        self._found.append((part, moment))

    def taken(self) -> dict[str, float]:
        """Milliseconds by part; `step` is the time from the first mark to the last. Clears the marks."""
        if self._gpu:
            torch.cuda.synchronize()

        def between(one: Any, other: Any) -> float:
            return float(one.elapsed_time(other)) if self._gpu else 1000 * (other - one)

        parts: defaultdict[str, float] = defaultdict(float)
        for (_, before), (part, after) in zip(self._found, self._found[1:], strict=False):
            parts[part] += between(before, after)
        parts["step"] = between(self._found[0][1], self._found[-1][1])
        self._found.clear()
        return parts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_corpus_options(parser)
    options = parser.parse_intermixed_args()
    with tempfile.TemporaryDirectory(prefix="caspi-bench-") as name:
        made = prepared(Path(name), options)
        config = made.require_train()
        [stage] = config.stages
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        dtype = compute_dtype(config.precision, device)
        model = load_for_stage(made.model, config, stage, device, dtype, made.seed)
        loaded = model.loaded
        optimizer = build.build(loaded.model, model.groups, stage)
        data = TrainingSet.to_train_on(Corpus.open(made.corpus.path, "train"), loaded.prompt, config, made.seed)
        plans, steps = plan_stage(data, config, stage, 1, 0)
        planned = PlannedSteps(data, plans, steps, 0, loaded.prompt, config, stage, 0)
        marks = Marks(device)
        objective = CrossEntropy(loaded.model, dtype).train()
        _listen(loaded.model, marks)
        run = _stepper(objective, optimizer, marks, device)
        queue = iter(loader(planned, config.workers))
        timed, busy = [], []
        for number in range(options.steps):
            cpu = time.process_time()
            marks.mark("start")
            run(next(queue))
            taken = marks.taken()
            if number >= options.warm_up:
                timed.append(taken)
                busy.append(1000 * (time.process_time() - cpu) / taken["step"] / (os.cpu_count() or 1))
        rest = _again(queue, planned, config.workers)
        with profile(
            activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
        ) as seen:
            for _ in range(2):
                marks.mark("start")
                run(next(rest))
            marks.taken()
        _print(timed, 1 - statistics.median(busy) if device.type == "cpu" else idle_times(seen)["share"], seen, device)


def _again(queue: Iterator[OptimizerStep], planned: PlannedSteps, workers: int) -> Iterator[OptimizerStep]:
    """Endless steps: the remaining ones, then again from the beginning."""
    yield from queue
    while True:
        yield from loader(planned, workers)


def _listen(model: Any, marks: Marks) -> None:
    modules = model.model
    modules.audio_tower.conv2d1.register_forward_pre_hook(lambda *_: marks.mark("features"))
    modules.multi_modal_projector.register_forward_pre_hook(lambda *_: marks.mark("encoder"))
    modules.multi_modal_projector.register_forward_hook(lambda *_: marks.mark("projector"))
    modules.language_model.register_forward_hook(lambda *_: marks.mark("decoder"))


def _stepper(
    objective: CrossEntropy, optimizer: torch.optim.Optimizer, marks: Marks, device: torch.device
) -> Callable[[OptimizerStep], None]:
    parameters = [p for group in optimizer.param_groups for p in group["params"]]

    def run(step: OptimizerStep) -> None:
        for batch in step.batches:
            here = to_device(batch, device)
            marks.mark("data")
            loss = objective(here) / step.target_tokens
            marks.mark("head")
            loss.backward()
            marks.mark("backward")
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        marks.mark("optimizer")

    return run


def _print(timed: list[dict[str, float]], idle: float, seen: Any, device: torch.device) -> None:
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"cpu, {torch.get_num_threads()} threads"
    whole = statistics.median(taken["step"] for taken in timed)
    print(f"{name}, torch {torch.__version__}, {len(timed)} steps\n\n| part | ms | |\n|---|---|---|")
    for part in (*PARTS, "step"):
        value = statistics.median(taken[part] for taken in timed)
        print(f"| {part} | {value:.1f} | {value / whole:.0%} |")
    print(f"| idle | | {idle:.0%} |\n")
    by = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    print(seen.key_averages().table(sort_by=by, row_limit=10, max_name_column_width=60))


if __name__ == "__main__":
    main()
