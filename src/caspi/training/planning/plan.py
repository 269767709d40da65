"""`caspi plan`: batches, memory, hours and cost of all stages, before anything is spent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from caspi.corpus.store import Corpus
from caspi.errors import UsageError
from caspi.model.aligner import prompt_for
from caspi.model.batch import AnyPrompt
from caspi.model.config import ModelConfig
from caspi.model.prompt import Prompt
from caspi.training.config import TrainConfig
from caspi.training.data.dataset import TrainingSet
from caspi.training.data.epoch_lengths import EpochLengths
from caspi.training.planning.costs import MicroBatchLoads, ModelShape, TrainableShape, block_passes, peak_memory
from caspi.training.planning.estimates import (
    ALLOCATOR,
    TABLE,
    Gpu,
    changes_that_fit,
    estimate,
    gpus,
    recognised,
    running,
)
from caspi.training.planning.pilot import Pilot, pilots
from caspi.training.planning.shapes import shapes
from caspi.training.planning.stage_batches import BatchCounts, batch_counts, planned


@dataclass(frozen=True, slots=True)
class StageCosts:
    """What a stage needs. trainable: parameters. hours: None without a GPU kind or a pilot; cost (dollars) and fits:
    None without a GPU kind. changes: that would make it fit."""

    trainable: int
    peak_gib: float
    pilot: Pilot | None = None
    hours: float | None = None
    cost: float | None = None
    fits: bool | None = None
    changes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StagePlan:
    """A stage: its batches and what it needs."""

    batches: BatchCounts
    costs: StageCosts

    def as_json(self) -> dict[str, Any]:
        """Both in one object; unknown costs are left out."""
        costs = {name: value for name, value in asdict(self.costs).items() if value not in (None, ())}
        return asdict(self.batches) | costs


@dataclass(frozen=True, slots=True)
class DecodedTarget:
    """The target tokens of an utterance, decoded, for a check by eye before training."""

    id: str
    system_turn: str
    target: str


@dataclass(frozen=True, slots=True)
class RunPlan:
    """All stages of a run. gpu: a kind, or None. measured: by a pilot on this machine. parameters, groups: of the
    model. utterances: of the training split that are used."""

    gpu: str | None
    gpus: int
    measured: bool
    stages: list[StagePlan]
    parameters: int
    groups: dict[str, int]
    utterances: int
    targets: list[DecodedTarget]

    @property
    def hours(self) -> float | None:
        """Of all stages; None if unknown."""
        hours = [stage.costs.hours for stage in self.stages if stage.costs.hours is not None]
        return sum(hours) if len(hours) == len(self.stages) else None

    @property
    def cost(self) -> float | None:
        """Of all stages, in dollars; None if unknown."""
        costs = [stage.costs.cost for stage in self.stages if stage.costs.cost is not None]
        return sum(costs) if len(costs) == len(self.stages) else None

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"stages": [stage.as_json() for stage in self.stages]}


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """gpu: a kind of the table; count: number of GPUs; pilot: measure on this machine; table: of further kinds."""

    gpu: str | None = None
    count: int = 1
    pilot: bool = False
    table: Path | None = None


def plan_run(start: ModelConfig, config: TrainConfig, corpus: Path, seed: int, options: PlanOptions) -> RunPlan:
    """Plans every stage as training would run it. Raises UsageError."""
    known = gpus(options.table)
    if options.gpu is not None and options.gpu not in known:
        raise UsageError(f"--gpu {options.gpu}: not one of {', '.join(known)} (--gpu-table adds your own: {TABLE})")
    gpu = known.get(options.gpu or "")
    shape, stages = shapes(start, config)
    prompt = prompt_for(start)
    data = TrainingSet.to_train_on(Corpus.open(corpus, "train"), prompt, config, seed)
    batches = planned(data, config, options.count, seed)
    measured: Sequence[Pilot | None] = [None] * len(batches)
    if options.pilot:
        measured = pilots(start, config, data, batches, shape, seed)
    plans = [
        StagePlan(
            batch_counts(data, stage, planned_stage, options.count),
            costs(shape, trained.learning, planned_stage.loads, config, gpu, options.count, pilot),
        )
        for stage, trained, planned_stage, pilot in zip(config.stages, stages, batches, measured, strict=True)
    ]
    targets = decoded_targets(data, prompt, batches[0].plans[0].lengths)
    return RunPlan(
        options.gpu, options.count, options.pilot, plans, shape.parameters, shape.groups, len(data.rows), targets
    )


def decoded_targets(data: TrainingSet, prompt: AnyPrompt, lengths: EpochLengths, count: int = 3) -> list[DecodedTarget]:
    """The decoded target tokens of a few utterances in an epoch, for a check by eye before training."""
    targets = []
    for row in data.rows[np.linspace(0, len(data.rows) - 1, min(count, len(data.rows))).astype(int)].tolist():
        if not isinstance(prompt, Prompt):
            timed = " ".join(f"{word.start:.2f} {word.text} {word.end:.2f}" for word in data.words[row])
            targets.append(DecodedTarget(data.ids[row], "", timed))
            continue
        text, language = data.target_of(row, lengths)
        example = prompt.example(0, text, language, data.contexts[row])
        targets.append(DecodedTarget(data.ids[row], data.contexts[row], prompt.tokenizer.decode(example.target)))
    return targets


def costs(
    shape: ModelShape,
    learning: TrainableShape,
    loads: MicroBatchLoads,
    config: TrainConfig,
    gpu: Gpu | None,
    ranks: int,
    pilot: Pilot | None,
) -> StageCosts:
    """Memory of a stage; with a GPU kind also whether it fits and what it costs; with a kind or a pilot also hours. The
    share of the GPU's rate that a pilot reached is used for other kinds too."""
    peak = float(peak_memory(shape, learning, loads).max())
    known = StageCosts(learning.parameters, peak, pilot)
    used = None if gpu is None else running(gpu, learning)
    if pilot is not None:
        here = this_machine(pilot, shape, learning)
        used = here
        if gpu is not None:
            used = replace(gpu, use=min(1.0, here.use), overhead=here.overhead, launch=here.launch)
    if used is None:
        return known
    seconds = estimate(
        shape, learning, loads, used, ranks, optimizer_seconds=pilot.optimizer_seconds if pilot and not gpu else None
    ).seconds
    known = replace(known, hours=seconds / 3600)
    if gpu is None:
        return known
    fits = peak + ALLOCATOR <= gpu.memory
    changes = [] if fits else changes_that_fit(shape, learning, loads, config, gpu.memory - ALLOCATOR, ranks)
    return replace(known, cost=seconds / 3600 * gpu.price * ranks, fits=fits, changes=tuple(changes))


def this_machine(pilot: Pilot, shape: ModelShape, learning: TrainableShape) -> Gpu:
    """The GPU kind that a pilot ran on: a known kind, or one with the rate that the pilot reached."""
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    kind = recognised(name, gpus())
    launch = pilot.floor / block_passes(shape, learning)
    if kind is None:
        return Gpu(name, 0.0, pilot.rate / 1e12, 1.0, 1.0, 0.0, 1.0, pilot.overhead, launch)
    return replace(kind, use=pilot.rate / (kind.rate * 1e12), overhead=pilot.overhead, launch=launch)
