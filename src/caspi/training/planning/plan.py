"""`caspi plan`: batches, memory, hours and cost of all stages, on one kind of machine or on several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from caspi.audio import Seconds
from caspi.corpus.store import Corpus
from caspi.errors import UsageError
from caspi.model.aligner import prompt_for
from caspi.model.batch import AnyPrompt
from caspi.model.config import ModelConfig
from caspi.model.prompt import Prompt
from caspi.training.config import StageConfig, TrainConfig
from caspi.training.data.dataset import TrainingSet
from caspi.training.data.epoch_lengths import EpochLengths
from caspi.training.planning.assumed import AssumedCorpus, assumed_set
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
from caspi.training.planning.overheads import Overheads, overheads
from caspi.training.planning.pilot import Pilot, pilots
from caspi.training.planning.shapes import shapes
from caspi.training.planning.spot import SpotCosts, spot_costs
from caspi.training.planning.stage_batches import BatchCounts, PlannedStage, batch_counts, planned


@dataclass(frozen=True, slots=True)
class StageCosts:
    """What a stage needs. trainable: parameters. hours: None without a GPU kind or a pilot; beside: what of them is not
    training steps, None where the GPU is not known; cost (dollars), spot and fits: None without a GPU kind. changes:
    that would make it fit."""

    trainable: int
    peak_gib: float
    pilot: Pilot | None = None
    hours: float | None = None
    beside: Overheads | None = None
    cost: float | None = None
    spot: SpotCosts | None = None
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
    model. utterances: of the training split that are used. assumed: there is no corpus. sharded: weights are."""

    gpu: str | None
    gpus: int
    measured: bool
    stages: list[StagePlan]
    parameters: int
    groups: dict[str, int]
    utterances: int
    targets: list[DecodedTarget]
    assumed: bool = False
    sharded: bool = False

    @property
    def fits(self) -> bool | None:
        """Whether every stage fits the GPU; None without a kind."""
        fits = [stage.costs.fits for stage in self.stages]
        return None if None in fits else all(fits)

    @property
    def spot(self) -> SpotCosts | None:
        """Of all stages; None if unknown."""
        spot = [stage.costs.spot for stage in self.stages if stage.costs.spot is not None]
        if len(spot) < len(self.stages):
            return None
        return SpotCosts(
            sum(one.hours for one in spot), sum(one.cost for one in spot), sum(one.interruptions for one in spot)
        )

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
        totals = {
            "hours": self.hours, "cost": self.cost, "fits": self.fits, "spot": asdict(self.spot) if self.spot else None
        }  # fmt: skip
        return asdict(self) | totals | {"stages": [stage.as_json() for stage in self.stages]}


@dataclass(frozen=True, slots=True)
class Machine:
    """gpu: a kind of the table, or None; count: number of GPUs."""

    gpu: str | None = None
    count: int = 1


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """machines: at least one. pilot: measure on this machine; table: of further kinds; assumed: instead of the corpus;
    sharded: weights are shared by the GPUs (FSDP2)."""

    machines: tuple[Machine, ...] = (Machine(),)
    pilot: bool = False
    table: Path | None = None
    assumed: AssumedCorpus | None = None
    sharded: bool = False


def plan_run(start: ModelConfig, config: TrainConfig, corpus: Path, seed: int, options: PlanOptions) -> list[RunPlan]:
    """Plans every stage as training would run it, for each machine. Raises UsageError."""
    known = gpus(options.table)
    for machine in options.machines:
        if machine.gpu is not None and machine.gpu not in known:
            raise UsageError(f"--gpu {machine.gpu}: not one of {', '.join(known)} (--gpu-table adds your own: {TABLE})")
    prompt = prompt_for(start)
    if options.assumed is None:
        data = TrainingSet.to_train_on(Corpus.open(corpus, "train"), prompt, config, seed)
        evaluated = _validation_seconds(corpus, config)
    else:
        if options.pilot or not isinstance(prompt, Prompt):
            raise UsageError("--hours is for a recogniser, without --pilot: there is no corpus to read")
        config = _in_random_order(config)
        data = assumed_set(options.assumed, prompt, config, seed)
        evaluated = config.evaluate.utterances * options.assumed.mean_seconds
    planner = _Planner(start, config, data, prompt, evaluated, seed, options)
    return [planner.on(machine, known.get(machine.gpu or "")) for machine in options.machines]


def _in_random_order(config: TrainConfig) -> TrainConfig:
    """Without curricula, for which texts and signals are needed: an order costs nothing."""
    stages = tuple(stage.model_copy(update={"curriculum": None}) for stage in config.stages)
    return config.model_copy(update={"stages": stages})


def _validation_seconds(corpus: Path, config: TrainConfig) -> Seconds:
    """Audio of one evaluation during training, on average; 0 without a validation split."""
    try:
        seconds = Corpus.open(corpus, "validation").numbers("seconds")
    except UsageError:
        return 0.0
    seconds = seconds[seconds <= config.max_seconds]
    return float(seconds.mean()) * min(len(seconds), config.evaluate.utterances) if len(seconds) else 0.0


class _Planner:
    """What plans for several machines share."""

    def __init__(
        self,
        start: ModelConfig,
        config: TrainConfig,
        data: TrainingSet,
        prompt: AnyPrompt,
        evaluated: Seconds,
        seed: int,
        options: PlanOptions,
    ) -> None:
        self._start, self._config, self._data, self._prompt = start, config, data, prompt
        self._evaluated, self._seed, self._options = evaluated, seed, options
        self._shape, self._stages = shapes(start, config)
        self._batches: dict[int, list[PlannedStage]] = {}

    def on(self, machine: Machine, gpu: Gpu | None) -> RunPlan:
        config, options, shape = self._config, self._options, self._shape
        if machine.count not in self._batches:
            self._batches[machine.count] = planned(self._data, config, machine.count, self._seed)
        batches = self._batches[machine.count]
        measured: Sequence[Pilot | None] = [None] * len(batches)
        if options.pilot:
            measured = pilots(self._start, config, self._data, batches, shape, self._seed)
        shards = machine.count if options.sharded else 1
        plans = [
            StagePlan(
                batch_counts(self._data, stage, batch, machine.count),
                stage_costs(
                    shape, what.learning, batch.loads, config, stage, gpu, machine.count, pilot,
                    evaluated=self._evaluated, shards=shards,
                ),
            )
            for stage, what, batch, pilot in zip(config.stages, self._stages, batches, measured, strict=True)
        ]  # fmt: skip
        assumed = options.assumed is not None
        targets = [] if assumed else decoded_targets(self._data, self._prompt, batches[0].plans[0].lengths)
        return RunPlan(
            machine.gpu, machine.count, options.pilot, plans, shape.parameters, shape.groups, len(self._data.rows),
            targets, assumed, options.sharded,
        )  # fmt: skip


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


def stage_costs(
    shape: ModelShape,
    learning: TrainableShape,
    loads: MicroBatchLoads,
    config: TrainConfig,
    stage: StageConfig,
    gpu: Gpu | None,
    ranks: int,
    pilot: Pilot | None,
    *,
    evaluated: Seconds,
    shards: int,
) -> StageCosts:
    """Memory of a stage; with a GPU kind also whether it fits and what it costs; with a kind or a pilot also hours. The
    share of the GPU's rate that a pilot reached is used for other kinds too. evaluated: audio of one evaluation.
    shards: GPUs that share the weights."""
    peak = float(peak_memory(shape, learning, loads, shards).max())
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
        shape, learning, loads, used, ranks,
        optimizer_seconds=pilot.optimizer_seconds if pilot and not gpu else None, shards=shards,
    ).seconds  # fmt: skip
    if gpu is None:
        return replace(known, hours=seconds / 3600)
    beside = overheads(shape, learning, loads, config, stage, gpu, ranks, evaluated=evaluated, training=seconds)
    total = seconds + beside.total
    fits = peak + ALLOCATOR <= gpu.memory
    changes = [] if fits else changes_that_fit(shape, learning, loads, config, gpu.memory - ALLOCATOR, ranks)
    return replace(
        known,
        hours=total / 3600,
        beside=beside,
        cost=total / 3600 * gpu.price * ranks,
        spot=spot_costs(gpu, ranks, total, total / beside.checkpoints),
        fits=fits,
        changes=tuple(changes),
    )


def this_machine(pilot: Pilot, shape: ModelShape, learning: TrainableShape) -> Gpu:
    """The GPU kind that a pilot ran on: a known kind, or one with the rate that the pilot reached."""
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    kind = recognised(name, gpus())
    launch = pilot.floor / block_passes(shape, learning)
    if kind is None:
        return Gpu(name, 0.0, pilot.rate / 1e12, 1.0, 1.0, 0.0, 1.0, pilot.overhead, launch)
    return replace(kind, use=pilot.rate / (kind.rate * 1e12), overhead=pilot.overhead, launch=launch)
