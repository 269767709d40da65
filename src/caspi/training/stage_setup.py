"""Prepares a model for a stage: trainable groups, activation checkpointing, compilation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import Qwen3ASRForConditionalGeneration
from transformers.trainer_utils import set_seed

from caspi.errors import UsageError
from caspi.model.activation_checkpointing import checkpoint_activations
from caspi.model.aligner import TrainedModel, load_aligner
from caspi.model.compiling import compile_blocks
from caspi.model.config import ModelConfig
from caspi.model.groups import TrainableGroup, select, set_trainable
from caspi.model.loading import LoadedModel, load
from caspi.training.config import StageConfig, TrainConfig
from caspi.training.distributed.processes import sharding


@dataclass(frozen=True, slots=True)
class StageModel:
    """The model of a stage, ready for training."""

    loaded: TrainedModel
    groups: list[TrainableGroup]
    compiled: bool


def load_for_stage(
    start: ModelConfig,
    config: TrainConfig,
    stage: StageConfig,
    device: torch.device,
    dtype: torch.dtype | None,
    seed: int,
) -> StageModel:
    """Loads `start` and prepares it for the stage; `seed` determines the initial values of adapters."""
    loaded = load_aligner(start, device) if start.task == "align" else load(start, device)
    if isinstance(loaded, LoadedModel) and loaded.eight_bit:
        raise UsageError(f"{start.start} is an export in eight bits: train from the model that it was exported from")
    set_seed(seed)
    groups = select(loaded.model, stage.groups)
    compiled = compiles(config, stage, on_gpu=device.type == "cuda")
    set_up(loaded.model, groups, dtype, config.activation_checkpointing_every, compiled=compiled)
    return StageModel(loaded, groups, compiled)


def compiles(config: TrainConfig, stage: StageConfig, *, on_gpu: bool) -> bool:
    """Whether blocks are compiled. `auto` compiles on a GPU, but not under ZeRO, which puts hooks inside blocks, and
    not dropout with activation checkpointing, for which torch reports that recomputed values differ."""
    if config.compile != "auto":
        return config.compile
    recomputes_dropout = config.activation_checkpointing_every > 0 and drops(stage)
    return on_gpu and sharding() != "zero3" and not recomputes_dropout


def drops(stage: StageConfig) -> bool:
    """Whether a stage's adapters use dropout."""
    return any(group.lora is not None and group.lora.dropout > 0 for group in stage.groups.values())


def set_up(
    model: Qwen3ASRForConditionalGeneration,
    groups: list[TrainableGroup],
    dtype: torch.dtype | None,
    activation_checkpointing_every: int,
    *,
    compiled: bool,
) -> None:
    """Sets up the model in place and undoes the settings of an earlier stage. dtype: for computing, None for fp32."""
    set_trainable(model, groups, dtype or torch.float32)
    checkpoint_activations(model, activation_checkpointing_every)
    if compiled:
        compile_blocks(model)
