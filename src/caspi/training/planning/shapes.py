"""Parameter counts of a model and its stages, on the meta device: nothing is allocated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from transformers import (
    AutoConfig,
    Qwen3ASRConfig,
    Qwen3ASRForConditionalGeneration,
    Qwen3ASRForTokenClassification,
)

from caspi.errors import UsageError, first_line
from caspi.model.aligner import with_times
from caspi.model.architectures import configuration
from caspi.model.config import ModelConfig
from caspi.model.forward import Model
from caspi.model.groups import TrainableGroup, TrainedGroup, describe, select
from caspi.model.loading import resolve
from caspi.training.config import StageConfig, TrainConfig
from caspi.training.objective_config import DistillationObjective, SequenceObjective
from caspi.training.planning.costs import ModelShape, TrainableShape
from caspi.training.stage_setup import compiles


def configured(start: ModelConfig) -> Qwen3ASRConfig:
    """The model's configuration. Raises UsageError."""
    if start.scale is not None or (start.init == "random" and start.start != "tiny"):
        return configuration(start.scale or "1.7b")
    try:
        return AutoConfig.from_pretrained(resolve(start.start), revision=start.revision)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"model {start.start}: cannot read its configuration ({first_line(error)}); "
            "model.init=random model.scale=1.7b shows the released shape without it"
        ) from error


def on_meta_device(start: ModelConfig) -> Model:
    """The model's shapes without its memory. Raises UsageError."""
    with torch.device("meta"):
        if start.task == "align":
            return Qwen3ASRForTokenClassification(with_times(configured(start), start))
        return Qwen3ASRForConditionalGeneration(configured(start))


@dataclass(frozen=True, slots=True)
class StageShape:
    """A stage on the meta device: what it trains, as rows for display and as input for the costs."""

    rows: list[TrainedGroup]
    learning: TrainableShape


def shapes(start: ModelConfig, config: TrainConfig) -> tuple[ModelShape, list[StageShape]]:
    """The model's shape, and what each stage trains. Nothing is allocated. Raises UsageError."""
    shape, found = None, []
    for stage in config.stages:
        model = on_meta_device(start)  # a new one for each stage: a stage may add adapters
        shape = shape or ModelShape.of(model, model.config)
        groups = select(model, stage.groups)
        learning = trainable_shape(model, shape, groups, stage, config)
        found.append(StageShape(describe(model, groups), learning))
    assert shape is not None  # a recipe has a stage
    return shape, found


def trainable_shape(
    model: nn.Module, shape: ModelShape, groups: Sequence[TrainableGroup], stage: StageConfig, config: TrainConfig
) -> TrainableShape:
    """For a GPU: nothing is predicted for a CPU."""
    how, beside = stage.objective, 0
    if isinstance(how, DistillationObjective):
        teacher = on_meta_device(ModelConfig(start=how.teacher, revision=how.revision))
        beside = sum(parameter.numel() for parameter in teacher.parameters())
    elif isinstance(how, SequenceObjective) and how.kl:
        beside = shape.parameters
    return TrainableShape.of(
        model,
        shape,
        groups,
        optimizer=stage.optimizer,
        activation_checkpointing_every=config.activation_checkpointing_every,
        compiled=compiles(config, stage, on_gpu=True),
        beside=beside,
    )
