"""Shows what a run would do before it starts: groups and counts of every stage, decoded targets, memory, a pilot."""

from __future__ import annotations

import gc
import logging
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch

from caspi.errors import UsageError
from caspi.model.config import ModelConfig
from caspi.model.groups import TrainedGroup
from caspi.model.prompt import Prompt
from caspi.progress import duration
from caspi.training.config import StageConfig, TrainConfig, stage_seed
from caspi.training.data.batch_plan import EpochPlan
from caspi.training.data.dataset import TrainingSet
from caspi.training.data.epoch_lengths import EpochLengths
from caspi.training.data.stage_plan import audio_hours, plan_stage
from caspi.training.data.steps import PlannedSteps
from caspi.training.distributed.processes import compute_dtype, processes, sharded
from caspi.training.objectives.build import stage_objective
from caspi.training.optim import build
from caspi.training.planning.costs import MicroBatchLoads, ModelShape, TrainableShape, block_passes, flops, peak_memory
from caspi.training.planning.estimates import ALLOCATOR, Gpu, changes_that_fit, estimate, gpus, recognised, running
from caspi.training.planning.pilot import Pilot
from caspi.training.planning.pilot import measure_passes as pilot
from caspi.training.planning.shapes import shapes, trainable_shape
from caspi.training.stage_setup import load_for_stage

_log = logging.getLogger(__name__)


def decoded_targets(data: TrainingSet, prompt: Prompt, lengths: EpochLengths, count: int = 3) -> list[dict[str, str]]:
    """The decoded target tokens of a few utterances in an epoch, for a check by eye before training."""
    shown = []
    for row in data.rows[np.linspace(0, len(data.rows) - 1, min(count, len(data.rows))).astype(int)].tolist():
        text, language = data.target_of(row, lengths)
        example = prompt.example(0, text, language, data.contexts[row])
        shown.append(
            {
                "id": data.ids[row],
                "system_turn": data.contexts[row],
                "target": prompt.tokenizer.decode(example.target),
            }
        )
    return shown


def show_targets(data: TrainingSet, prompt: Prompt, lengths: EpochLengths) -> None:
    """Prints `decoded_targets`, for a last check before the first step."""
    for shown in decoded_targets(data, prompt, lengths):
        context = f" (context: {shown['system_turn'][:80]})" if shown["system_turn"] else ""
        _log.info(f"trains on {shown['id']}{context}: {shown['target']}")


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
        waste = waste_line([counts(data, stage, plan, ranks)])
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
        _log.warning(f"stage {name}: {ahead.stage.epochs:g} epochs of {epoch:,} steps round to 0 steps: it takes one")


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


@dataclass(frozen=True, slots=True)
class PlannedStage:
    """A stage's micro-batches, as rows of the corpus and as their loads."""

    plans: list[EpochPlan]
    steps: int
    loads: MicroBatchLoads


def planned(data: TrainingSet, config: TrainConfig, ranks: int, seed: int) -> list[PlannedStage]:
    """All stages of a run, as training will take them."""
    found = []
    for number, stage in enumerate(config.stages):
        plans, steps = plan_stage(data, config, stage, ranks, stage_seed(seed, number))
        found.append(PlannedStage(plans, steps, MicroBatchLoads.of(data, plans, steps, stage.objective.sequences)))
    return found


def counts(data: TrainingSet, stage: StageConfig, plan: PlannedStage, ranks: int) -> dict[str, Any]:
    """Steps, micro-batches, hours of audio, and the waste through imbalance and unfilled budgets."""
    return {
        "name": stage.name,
        "epochs": stage.epochs,
        "mix": stage.mix or "",
        "steps": plan.steps,
        "steps_per_epoch": len(plan.plans[0].steps),
        "effective_batch": len(plan.plans[0].rows(0)),
        "micro_batches_per_step": len(plan.loads.step) / plan.steps / ranks,
        "audio_hours": audio_hours(data, plan.plans, plan.steps),
        "imbalance": float(np.mean([epoch.imbalance for epoch in plan.plans])),
        "filled": float(np.mean([epoch.filled for epoch in plan.plans])),
        "dropped": float(np.mean([epoch.dropped for epoch in plan.plans])),
        "largest_micro_batch_seconds": float(plan.loads.seconds.max()),
    }


def waste_line(stages: list[dict[str, Any]]) -> str:
    """The waste of the worst stage, from `counts`: unfilled budgets, imbalance of ranks, utterances left over."""
    filled, apart = min(stage["filled"] for stage in stages), max(stage["imbalance"] for stage in stages)
    dropped = max(stage["dropped"] for stage in stages)
    left = f", {dropped:.0f} utterances per epoch left over after the last full step" if dropped else ""
    return f"micro-batches {filled:.0%} filled, ranks {apart:.1%} apart{left}"


def costs(
    shape: ModelShape,
    learning: TrainableShape,
    loads: MicroBatchLoads,
    config: TrainConfig,
    gpu: Gpu | None,
    ranks: int,
    pilot: Pilot | None,
) -> dict[str, Any]:
    """Memory of a stage; with a GPU kind also whether it fits and what it costs; with a kind or a pilot also hours. The
    share of the GPU's rate that a pilot reached is used for other kinds too."""
    peak = float(peak_memory(shape, learning, loads).max())
    found: dict[str, Any] = {"trainable": learning.parameters, "peak_gib": peak}
    if pilot is not None:
        found["pilot"] = asdict(pilot)
    used = None if gpu is None else running(gpu, learning)
    if pilot is not None:
        here = this_machine(pilot, shape, learning)
        used = here
        if gpu is not None:
            used = replace(gpu, use=min(1.0, here.use), overhead=here.overhead, launch=here.launch)
    if used is None:
        return found
    seconds = estimate(
        shape, learning, loads, used, ranks, optimizer_seconds=pilot.optimizer_seconds if pilot and not gpu else None
    ).seconds
    found["hours"] = seconds / 3600
    if gpu is not None:
        found["cost"] = found["hours"] * gpu.price * ranks
        found["fits"] = peak + ALLOCATOR <= gpu.memory
        if not found["fits"]:
            found["changes"] = changes_that_fit(shape, learning, loads, config, gpu.memory - ALLOCATOR, ranks)
    return found


def this_machine(pilot: Pilot, shape: ModelShape, learning: TrainableShape) -> Gpu:
    """The GPU kind that a pilot ran on: a known kind, or one with the rate that the pilot reached."""
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    kind = recognised(name, gpus())
    launch = pilot.floor / block_passes(shape, learning)
    if kind is None:
        return Gpu(name, 0.0, pilot.rate / 1e12, 1.0, 1.0, 0.0, 1.0, pilot.overhead, launch)
    return replace(kind, use=pilot.rate / (kind.rate * 1e12), overhead=pilot.overhead, launch=launch)


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
        tight = "it may run out, and then continues with smaller micro-batches"
        _log.info(f"stage {stage}: about {peak:.1f} GiB of {free:.1f}: {tight}")
    return peak


def pilots(
    start: ModelConfig, config: TrainConfig, data: TrainingSet, plans: list[PlannedStage], shape: ModelShape, seed: int
) -> list[Pilot]:
    """Measures a short pilot run of every stage, on this machine."""
    state = processes()
    dtype = compute_dtype(config.precision, state.device)
    found = []
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
        measured = pilot(
            stage_objective(stage, model.loaded, start, dtype, drawn, compiled=model.compiled),
            build.build(model.loaded.model, model.groups, stage),
            [[steps.micro_batch(*rows[index]) for index in some] for some in alike],
            np.array([np.median(work[some]) for some in alike]),
            steps.micro_batch(*rows[heaviest]),
            accumulates=not plan.loads.first[heaviest],
        )
        found.append(measured)
        del model
        gc.collect()
    return found
