"""What `caspi train` shows before it starts: groups and counts of every stage, decoded targets, memory."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch

from caspi.errors import UsageError
from caspi.model.batch import AnyPrompt
from caspi.model.config import ModelConfig
from caspi.model.groups import TrainedGroup
from caspi.progress import duration
from caspi.training.config import StageConfig, TrainConfig
from caspi.training.data.batch_plan import EpochPlan
from caspi.training.data.dataset import TrainingSet
from caspi.training.data.epoch_lengths import EpochLengths
from caspi.training.distributed.processes import processes, sharded
from caspi.training.planning.costs import MicroBatchLoads, ModelShape, TrainableShape, peak_memory
from caspi.training.planning.estimates import ALLOCATOR, changes_that_fit, estimate, gpus, recognised, running
from caspi.training.planning.plan import decoded_targets
from caspi.training.planning.shapes import shapes
from caspi.training.planning.stage_batches import batch_counts, planned, waste_line

_log = logging.getLogger(__name__)


def show_targets(data: TrainingSet, prompt: AnyPrompt, lengths: EpochLengths) -> None:
    """Prints `decoded_targets`, for a last check before the first step."""
    for shown in decoded_targets(data, prompt, lengths):
        context = f" (context: {shown.system_turn[:80]})" if shown.system_turn else ""
        _log.info(f"trains on {shown.id}{context}: {shown.target}")


def show_devices(ranks: int) -> None:
    """Reports idle GPUs, and a machine without a GPU."""
    found = torch.cuda.device_count()
    if not found:
        _log.info("no GPU found: for memory, hours and cost use caspi plan RECIPE --gpu KIND, or --pilot")
    if found > ranks:
        _log.info(f"{found} GPUs found, {ranks} used: torchrun --nproc-per-node {found} -m caspi train ... uses all")


@dataclass(frozen=True, slots=True)
class StageForecast:
    """A stage before it begins: its batches, what it trains (a row per group), its costs and waste in words."""

    stage: StageConfig
    plans: list[EpochPlan]
    steps: int
    groups: list[TrainedGroup]
    costs: str
    waste: str


def forecast(start: ModelConfig, config: TrainConfig, data: TrainingSet, ranks: int, seed: int) -> list[StageForecast]:
    """Forecasts of all stages of a run. Raises UsageError if a stage is invalid or does not fit this process's GPU."""
    shape, stages = shapes(start, config)
    found = []
    for stage, what, plan in zip(config.stages, stages, planned(data, config, ranks, seed), strict=True):
        peak = require_memory(stage.name, shape, what.learning, plan.loads, config, ranks)
        costs = costs_line(shape, what.learning, plan.loads, ranks, peak)
        waste = waste_line([batch_counts(data, stage, plan, ranks)], ranks)
        found.append(StageForecast(stage, plan.plans, plan.steps, what.rows, costs, waste))
    return found


def show_stage(ahead: StageForecast) -> None:
    """Prints what a stage is about to train, and what it is expected to need."""
    name = ahead.stage.name
    for row in ahead.groups:
        note = f" ({row.note})" if row.note else ""
        _log.info(f"stage {name}: {row.group} {row.parameters:,} at {row.lr:g}{note}")
    parameters = sum(row.parameters for row in ahead.groups)
    _log.info(f"stage {name}: {parameters:,} parameters, {ahead.steps:,} steps, {ahead.waste}")
    if ahead.costs:
        _log.info(f"stage {name}: {ahead.costs}")
    if (warmup := ahead.stage.schedule.warmup(ahead.steps)) >= ahead.steps:
        _log.warning(f"stage {name}: {warmup:,} steps of warmup: the stage never reaches its full learning rates")
    elif (left := ahead.steps - ahead.stage.schedule.decay(ahead.steps)) < warmup:
        _log.warning(f"stage {name}: {warmup:,} steps of warmup overlap the decay: warmup is cut to {left:,} steps")
    epoch = len(ahead.plans[0].steps)
    if epoch == 1:
        count = len(ahead.plans[0].rows(0))
        _log.warning(f"stage {name}: an epoch is a single step: its batch contains all {count:,} utterances")
    if ahead.stage.epochs * epoch < 0.5:
        _log.warning(
            f"stage {name}: {ahead.stage.epochs:g} epochs of {epoch:,} steps round to 0 steps; one step is run"
        )


def costs_line(shape: ModelShape, learning: TrainableShape, loads: MicroBatchLoads, ranks: int, peak: float) -> str:
    """What a stage is expected to need on this machine: memory, and hours and dollars if its GPU is known; "" without a
    GPU."""
    if not torch.cuda.is_available():
        return ""
    name = torch.cuda.get_device_name()
    kind = recognised(name, gpus())
    if kind is None:
        return f"about {peak:.1f} GiB (estimated); {name} is not in the table of GPU kinds: --pilot measures hours"
    seconds = estimate(shape, learning, loads, running(kind, learning), ranks).seconds
    cost = seconds / 3600 * kind.price * ranks
    return f"about {peak:.1f} GiB, {duration(seconds)}, {cost:.2f} $ (estimated)"


def require_memory(
    stage: str, shape: ModelShape, learning: TrainableShape, loads: MicroBatchLoads, config: TrainConfig, ranks: int
) -> float:
    """GiB that a stage is expected to need on this process's GPU; 0 on a CPU. Raises UsageError if the GPU has less,
    and names changes that would make it fit."""
    if not torch.cuda.is_available():
        return 0.0
    free, total = (size / 2**30 for size in torch.cuda.mem_get_info())
    free += torch.cuda.memory_reserved() / 2**30  # what this process itself holds
    shards = ranks if sharded() else 1
    peak = float(peak_memory(shape, learning, loads, shards).max())
    if peak > free:
        found = changes_that_fit(shape, learning, loads, config, free - ALLOCATOR, ranks)
        hint = f"what fits: {'; or '.join(found)}" if found else "train fewer groups, or with lora, or on a larger GPU"
        raise UsageError(
            f"stage {stage} needs about {peak:.1f} GiB, this GPU has {free:.1f} free of {total:.1f}: {hint}"
        )
    if peak + ALLOCATOR > free and processes().is_main_process:
        tight = "may run out of memory; it then continues with smaller micro-batches"
        _log.info(f"stage {stage}: about {peak:.1f} GiB of {free:.1f}: {tight}")
    return peak
