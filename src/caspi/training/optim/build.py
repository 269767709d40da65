"""Optimizer and schedule of a stage. A new optimizer needs a function here and a name in the recipe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from transformers import get_scheduler

from caspi.model.groups import STACKS, TrainableGroup
from caspi.training.config import OptimizerName, Schedule, StageConfig
from caspi.training.optim.adamw8bit import adamw8bit
from caspi.training.optim.muon import Muon

_SCHEDULES = {"warmup-stable-decay": "warmup_stable_decay", "constant": "constant_with_warmup"}


def build(model: nn.Module, groups: list[TrainableGroup], stage: StageConfig) -> torch.optim.Optimizer:
    """The stage's optimizer. Weight decay applies to matrices, not to norms and biases (AdamW: Loshchilov and Hutter
    2019)."""
    parameters = dict(model.named_parameters())
    param_groups: list[dict[str, Any]] = []
    for group in groups:
        uses_momentum = by_momentum(group, parameters, stage.optimizer)
        matrices = [parameters[name] for name, momentum in uses_momentum.items() if momentum]
        others = [
            parameters[name] for name, momentum in uses_momentum.items() if not momentum and parameters[name].ndim > 1
        ]
        vectors = [parameters[name] for name in uses_momentum if parameters[name].ndim <= 1]
        muon = {"momentum": stage.momentum} | ({"rows": stage.momentum} if stage.optimizer == "normuon" else {})
        for group_parameters, decay, options in (
            (matrices, stage.weight_decay, muon),
            (others, stage.weight_decay, {}),
            (vectors, 0.0, {}),
        ):
            if group_parameters:
                param_groups.append(
                    {"params": group_parameters, "lr": group.lr, "weight_decay": decay, "group": group.name, **options}
                )
    if stage.optimizer == "adamw":
        return torch.optim.AdamW(param_groups, betas=stage.betas, fused=True)
    if stage.optimizer == "adamw8bit":
        return adamw8bit(param_groups, stage.betas)
    return Muon(param_groups, betas=stage.betas)


def by_momentum(
    group: TrainableGroup, parameters: Mapping[str, torch.Tensor], optimizer: OptimizerName
) -> dict[str, bool]:
    """Which of a group's parameters Muon or NorMuon updates: the matrices inside blocks.
    Embeddings, convolutions and the projector have another geometry."""
    inside = group.name in STACKS and group.lora is None and optimizer in ("muon", "normuon")
    return {name: inside and parameters[name].ndim == 2 for name in group.names}


def schedule(optimizer: torch.optim.Optimizer, config: Schedule, steps: int) -> torch.optim.lr_scheduler.LRScheduler:
    """The learning-rate schedule over `steps`."""
    warmup = config.warmup(steps)
    options = {}
    if config.kind == "warmup-stable-decay":
        decay = config.decay(steps)
        warmup = min(warmup, steps - decay)  # they must not overlap: the rate would jump
        options = {"num_decay_steps": decay}
    return get_scheduler(
        _SCHEDULES.get(config.kind, config.kind),
        optimizer,
        num_warmup_steps=warmup,
        num_training_steps=steps,
        scheduler_specific_kwargs=options,
    )


def learning_rates(optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """The current learning rate of every group, by its name."""
    return {group["group"]: float(group["lr"]) for group in optimizer.param_groups}
