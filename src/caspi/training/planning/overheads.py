"""What a stage takes beside its training steps: start, evaluations, saving, and decoding for the sequence objective.

Each figure is from one measurement of the 1.7B on an H200 (docs/measurements.md), scaled by the model's parameters and,
for decoding, by the memory bandwidth of the GPU, which limits it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from caspi.audio import Seconds
from caspi.training.config import StageConfig, TrainConfig
from caspi.training.objective_config import SequenceObjective
from caspi.training.planning.costs import MicroBatchLoads, ModelShape, TrainableShape
from caspi.training.planning.estimates import Gpu

_MEASURED_PARAMETERS, _MEASURED_BANDWIDTH = 2.04e9, 4.8
_START = 60.0  # seconds to load the model and compile its blocks
_GRAPHS = 3.5  # seconds by which the first evaluation of a stage is slower: the engine captures its steps
_AN_EVALUATION, _EVALUATED_PER_SECOND = 1.5, 2_600.0  # seconds, and seconds of audio: 400 clips of 3,100 s in 2.7 s
_DECODED_PER_SECOND = 4_600.0  # seconds of audio, many clips at once
_WEIGHT_BYTES, _SAVED_PER_SECOND = 4, 1.36e9  # 24.5 GB in 18.0 s, written and read again


@dataclass(frozen=True, slots=True)
class Overheads:
    """Seconds of a stage beside its steps. evaluations, checkpoints: how many there are."""

    starting: Seconds
    evaluating: Seconds
    saving: Seconds
    decoding: Seconds
    evaluations: int
    checkpoints: int

    @property
    def total(self) -> Seconds:
        return self.starting + self.evaluating + self.saving + self.decoding


def overheads(
    shape: ModelShape,
    learning: TrainableShape,
    loads: MicroBatchLoads,
    config: TrainConfig,
    stage: StageConfig,
    gpu: Gpu,
    ranks: int,
    *,
    evaluated: Seconds,
    training: Seconds,
) -> Overheads:
    """evaluated: audio of one evaluation. training: of the stage's steps."""
    size, speed = shape.parameters / _MEASURED_PARAMETERS, gpu.bandwidth / _MEASURED_BANDWIDTH
    steps = int(loads.step.max()) + 1
    evaluations = math.ceil(steps / min(config.evaluate.every, steps))
    checkpoints = evaluations + steps // (config.save_every or steps + 1)
    if config.save_every_minutes is not None:
        checkpoints += int(training / 60 / config.save_every_minutes)
    one_evaluation = _AN_EVALUATION + evaluated * size / (speed * _EVALUATED_PER_SECOND) / ranks
    one_checkpoint = (_WEIGHT_BYTES * shape.parameters + learning.kept) / _SAVED_PER_SECOND
    sampled = 0.0
    if isinstance(stage.objective, SequenceObjective):
        sampled = float(loads.seconds.sum()) * stage.objective.hypotheses
    return Overheads(
        starting=_START,
        evaluating=_GRAPHS + evaluations * one_evaluation,
        saving=checkpoints * one_checkpoint,
        decoding=sampled * size / (speed * _DECODED_PER_SECOND) / ranks,
        evaluations=evaluations,
        checkpoints=checkpoints,
    )
