"""The micro-batches of every stage, as training will take them, and what they waste."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from caspi.training.config import StageConfig, TrainConfig, stage_seed
from caspi.training.data.batch_plan import EpochPlan
from caspi.training.data.dataset import TrainingSet
from caspi.training.data.stage_plan import audio_hours, plan_stage
from caspi.training.planning.costs import MicroBatchLoads


@dataclass(frozen=True, slots=True)
class PlannedStage:
    """A stage's micro-batches, as rows of the corpus and as their loads."""

    plans: list[EpochPlan]
    steps: int
    loads: MicroBatchLoads


def planned(data: TrainingSet, config: TrainConfig, ranks: int, seed: int) -> list[PlannedStage]:
    """All stages of a run, as training will take them."""
    stages = []
    for number, stage in enumerate(config.stages):
        plans, steps = plan_stage(data, config, stage, ranks, stage_seed(seed, number))
        stages.append(PlannedStage(plans, steps, MicroBatchLoads.of(data, plans, steps, stage.objective.sequences)))
    return stages


@dataclass(frozen=True, slots=True)
class BatchCounts:
    """The batches of a stage. imbalance: share of the ranks' time spent waiting for the slowest. filled: used share of
    max_batch_seconds. dropped: utterances per epoch left over after the last full step; all averaged over epochs.
    largest_micro_batch_seconds: of audio."""

    name: str
    epochs: float
    mix: str
    steps: int
    steps_per_epoch: int
    effective_batch: int
    micro_batches_per_step: float
    audio_hours: float
    imbalance: float
    filled: float
    dropped: float
    largest_micro_batch_seconds: float


def batch_counts(data: TrainingSet, stage: StageConfig, plan: PlannedStage, ranks: int) -> BatchCounts:
    """Counts a stage's batches, on `ranks` processes."""
    return BatchCounts(
        name=stage.name,
        epochs=stage.epochs,
        mix=stage.mix or "",
        steps=plan.steps,
        steps_per_epoch=len(plan.plans[0].steps),
        effective_batch=len(plan.plans[0].rows(0)),
        micro_batches_per_step=len(plan.loads.step) / plan.steps / ranks,
        audio_hours=audio_hours(data, plan.plans, plan.steps),
        imbalance=float(np.mean([epoch.imbalance for epoch in plan.plans])),
        filled=float(np.mean([epoch.filled for epoch in plan.plans])),
        dropped=float(np.mean([epoch.dropped for epoch in plan.plans])),
        largest_micro_batch_seconds=float(plan.loads.seconds.max()),
    )


def waste_line(stages: Sequence[BatchCounts], ranks: int) -> str:
    """The waste of the worst stage: unfilled budgets, imbalance of several ranks, utterances left over."""
    filled, imbalance = min(stage.filled for stage in stages), max(stage.imbalance for stage in stages)
    dropped = max(stage.dropped for stage in stages)
    left = f", {dropped:.0f} utterances per epoch left over after the last full step" if dropped else ""
    apart = f", imbalance of ranks {100 * imbalance:.1f} %" if ranks > 1 else ""
    return f"micro-batches {100 * filled:.0f} % filled{apart}{left}"
