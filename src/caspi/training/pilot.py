"""A short measured pilot: a few micro-batches of every stage, computed on this machine, for `caspi plan`."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from caspi.model.groups import TrainableGroup, set_trainable
from caspi.model.loading import Loaded
from caspi.model.recompute import recompute
from caspi.training import optimizers
from caspi.training.collation import Batch, collate
from caspi.training.config import StageConfig
from caspi.training.data import TrainingSet
from caspi.training.objectives import CrossEntropy

_REPEATED = 3


@dataclass(frozen=True, slots=True)
class Pilot:
    """What this machine reached: FLOPs a second, seconds a micro-batch costs besides, seconds of an optimizer step;
    and on a GPU the peak in GiB of the micro-batch that was expected to need most."""

    rate: float
    overhead: float
    optimizer_seconds: float
    peak: float | None


def measure(
    loaded: Loaded,
    stage: StageConfig,
    groups: list[TrainableGroup],
    data: TrainingSet,
    micro_batches: list[np.ndarray],
    work: np.ndarray,
    dtype: torch.dtype | None,
    recompute_every: int,
    *,
    accumulates: bool,
) -> Pilot:
    """Computes `micro_batches` (corpus rows) whose FLOPs are `work`; the last is the one that needs most memory, on top
    of the gradients of those before it where it accumulates."""
    device = next(loaded.model.parameters()).device
    set_trainable(loaded.model, groups, dtype or torch.float32)
    recompute(loaded.model, recompute_every)
    optimizer = optimizers.adamw(loaded.model, groups, stage)
    objective = CrossEntropy(loaded.model, dtype).train()
    batches = [collate([data.item(int(row)) for row in rows], loaded.prompt).to(device) for rows in micro_batches]
    _pass(objective, batches[-1])
    stepping = [_timed(optimizer.step, device) for _ in range(2)][-1]  # the first one makes its state
    optimizer.zero_grad(set_to_none=True)
    peak = None
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        for _ in range(2 if accumulates else 1):
            _pass(objective, batches[-1])
        peak = torch.cuda.max_memory_allocated() / 2**30
    seconds = []
    for batch in batches:
        taken = [_timed(functools.partial(_pass, objective, batch), device) for _ in range(_REPEATED)]
        seconds.append(float(np.median(taken)))
    rate, overhead = fit(work, np.array(seconds))
    return Pilot(rate, overhead, stepping, peak)


def fit(work: np.ndarray, seconds: np.ndarray) -> tuple[float, float]:
    """Rate and overhead of seconds = overhead + work / rate, by least squares on relative errors, not negative."""
    design = np.stack([1 / seconds, work / seconds], axis=1)
    overhead, slope = np.linalg.lstsq(design, np.ones(len(seconds)), rcond=None)[0]
    if overhead < 0 or slope <= 0:
        overhead, slope = 0.0, float((seconds / work).mean())
    return float(1 / slope), float(overhead)


def _pass(objective: CrossEntropy, batch: Batch) -> None:
    (objective(batch) / len(batch.labels)).backward()


def _timed(work: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started
