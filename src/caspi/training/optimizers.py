"""Optimizer and schedule of a stage. A new optimizer is a function here and a name in the recipe."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import get_scheduler

from caspi.model.groups import TrainableGroup
from caspi.training.config import Schedule, StageConfig

_SCHEDULES = {"warmup-stable-decay": "warmup_stable_decay", "constant": "constant_with_warmup"}


def adamw(model: nn.Module, groups: list[TrainableGroup], stage: StageConfig) -> torch.optim.Optimizer:
    """AdamW (Loshchilov and Hutter 2019); matrices decay, norms and biases do not."""
    parameters = dict(model.named_parameters())
    param_groups: list[dict[str, Any]] = []
    for group in groups:
        members = [parameters[name] for name in group.names]
        for decay, chosen in (
            (stage.weight_decay, [p for p in members if p.ndim > 1]),
            (0.0, [p for p in members if p.ndim <= 1]),
        ):
            if chosen:
                param_groups.append({"params": chosen, "lr": group.lr, "weight_decay": decay, "group": group.name})
    return torch.optim.AdamW(param_groups, betas=stage.betas, fused=True)


def schedule(optimizer: torch.optim.Optimizer, how: Schedule, steps: int) -> torch.optim.lr_scheduler.LRScheduler:
    """The learning-rate schedule over `steps`."""
    warmup = how.warmup(steps)
    options = {}
    if how.kind == "warmup-stable-decay":
        options = {"num_decay_steps": round(how.decay_ratio * steps)}
    return get_scheduler(
        _SCHEDULES.get(how.kind, how.kind),
        optimizer,
        num_warmup_steps=warmup,
        num_training_steps=steps,
        scheduler_specific_kwargs=options,
    )


def learning_rates(optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """Group name to its present rate."""
    return {group["group"]: float(group["lr"]) for group in optimizer.param_groups}
