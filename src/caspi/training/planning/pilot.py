"""A short pilot run for `caspi plan`: a few micro-batches of every stage, measured on this machine."""

from __future__ import annotations

import functools
import gc
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from caspi.model.batch import Batch
from caspi.model.config import ModelConfig
from caspi.model.tensors import to_device
from caspi.training.config import TrainConfig, stage_seed
from caspi.training.data.dataset import TrainingSet
from caspi.training.data.steps import PlannedSteps
from caspi.training.distributed.processes import compute_dtype, processes
from caspi.training.objectives.base import Objective
from caspi.training.objectives.build import stage_objective
from caspi.training.optim import build
from caspi.training.planning.costs import ModelShape, flops, peak_memory
from caspi.training.planning.shapes import trainable_shape
from caspi.training.planning.stage_batches import PlannedStage
from caspi.training.stage_setup import load_for_stage

_ALIKE = 1e-6  # root mean square of relative errors: below the precision of any clock, above rounding


@dataclass(frozen=True, slots=True)
class Pilot:
    """What this machine reached. rate: FLOPs per second; overhead: seconds per micro-batch; floor: the least seconds of
    any micro-batch; optimizer_seconds: of one step; peak: on a GPU the GiB of the micro-batch that was expected to need
    most memory."""

    rate: float
    overhead: float
    floor: float
    optimizer_seconds: float
    peak: float | None


def pilots(
    start: ModelConfig, config: TrainConfig, data: TrainingSet, plans: list[PlannedStage], shape: ModelShape, seed: int
) -> list[Pilot]:
    """Measures a short pilot run of every stage, on this machine."""
    state = processes()
    dtype = compute_dtype(config.precision, state.device)
    measured = []
    for number, (stage, plan) in enumerate(zip(config.stages, plans, strict=True)):
        drawn = stage_seed(seed, number)
        model = load_for_stage(start, config, stage, state.device, dtype, drawn)
        learning = trainable_shape(model.loaded.model, shape, model.groups, stage, config)
        work = flops(shape, learning, plan.loads)
        order = np.argsort(work, kind="stable")
        middles = [int(share * (len(order) - 1)) for share in (0.05, 0.35, 0.65, 0.95)]
        alike = [order[max(0, middle - 1) : middle + 2] for middle in middles]
        heaviest = int(peak_memory(shape, learning, plan.loads).argmax())
        rows = [
            (micro, number) for number, epoch in enumerate(plan.plans)
            for step in epoch.steps for rank in step for micro in rank
        ]  # fmt: skip
        steps = PlannedSteps(data, plan.plans, plan.steps, 0, model.loaded.prompt, config, stage, drawn)
        pilot = measure_passes(
            stage_objective(stage, model.loaded, start, dtype, drawn, compiled=model.compiled),
            build.build(model.loaded.model, model.groups, stage),
            [[steps.micro_batch(*rows[index]) for index in some] for some in alike],
            np.array([np.median(work[some]) for some in alike]),
            steps.micro_batch(*rows[heaviest]),
            accumulates=not plan.loads.first[heaviest],
        )
        measured.append(pilot)
        del model
        gc.collect()
    return measured


def measure_passes(
    objective: Objective,
    optimizer: torch.optim.Optimizer,
    alike: list[list[Batch]],
    work: np.ndarray,
    heaviest: Batch,
    *,
    accumulates: bool,
) -> Pilot:
    """Measures micro-batches of a stage. alike: lists of micro-batches with about the same FLOPs, given in `work`; each
    runs once and the median counts, because libraries are slower the first time they see a shape. heaviest: the
    micro-batch that needs most memory. accumulates: it adds to the gradients of earlier micro-batches."""
    objective.train()
    device = next(objective.parameters()).device
    most = to_device(heaviest, device)
    _pass(objective, most)
    stepping = [_timed(optimizer.step, device) for _ in range(2)][-1]  # the first one allocates its state
    optimizer.zero_grad(set_to_none=True)
    peak = None
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        for _ in range(2 if accumulates else 1):
            _pass(objective, most)
        peak = torch.cuda.max_memory_allocated() / 2**30
    seconds = []
    for batches in ([to_device(batch, device) for batch in some] for some in alike):
        taken = [_timed(functools.partial(_pass, objective, one), device) for one in batches]
        seconds.append(float(np.median(taken)))
    return Pilot(*fit(work, np.array(seconds)), stepping, peak)


def fit(work: np.ndarray, seconds: np.ndarray) -> tuple[float, float, float]:
    """Rate, overhead and floor of seconds = max(floor, overhead + work / rate), by least squares of relative errors.
    The points with least work give the floor, the others the line; the split with the smallest error is taken. Among
    equally good splits, the one with fewest points on the floor is taken, so that rounding does not decide."""
    order = np.argsort(work)
    work, seconds = work[order], seconds[order]
    errors, found = [], []
    for on_floor in range(len(work)):
        floor = float(np.mean(seconds[:on_floor])) if on_floor else 0.0
        rate, overhead = _line(work[on_floor:], seconds[on_floor:])
        error = np.maximum(floor, overhead + work / rate) / seconds - 1
        errors.append(float(np.square(error).mean()) ** 0.5)
        found.append((rate, overhead, floor))
    return next(model for error, model in zip(errors, found, strict=True) if error <= min(errors) + _ALIKE)


def _line(work: np.ndarray, seconds: np.ndarray) -> tuple[float, float]:
    """Rate and overhead, neither negative."""
    design = np.stack([1 / seconds, work / seconds], axis=1)
    overhead, slope = np.linalg.lstsq(design, np.ones(len(seconds)), rcond=None)[0]
    if len(work) < 2 or overhead < 0 or slope <= 0:
        overhead, slope = 0.0, float((seconds / work).mean())
    return float(1 / slope), float(overhead)


def _pass(objective: Objective, batch: Batch) -> None:
    (objective(batch) / len(batch.labels)).backward()


def _timed(work: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started
