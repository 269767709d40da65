"""Named parameter groups: every parameter is in exactly one; recipes refer to groups by name.

`audio_front`, `audio_layers[i]`, `projector`, `decoder_layers[i]`, `embeddings`; of an aligner also `times`, its
classifier. A block's norms belong to the block; the final norms of encoder and decoder belong to their last layers. The
output head of a recogniser is tied to the embeddings: training one also trains the other.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass

import torch
from torch import nn

from caspi.errors import UsageError
from caspi.model import adapters
from caspi.model.config import GROUP_NAMES, GroupName, GroupTraining, Lora

STACKS = ("audio_layers", "decoder_layers")
_ADAPTED = (*STACKS, "projector")

_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"model\.audio_tower\.layers\.(\d+)\."), "audio_layers"),
    (re.compile(r"model\.audio_tower\.ln_post\."), "audio_layers:last"),
    (re.compile(r"model\.audio_tower\.conv"), "audio_front"),
    (re.compile(r"model\.multi_modal_projector\."), "projector"),
    (re.compile(r"model\.language_model\.layers\.(\d+)\."), "decoder_layers"),
    (re.compile(r"model\.language_model\.norm\."), "decoder_layers:last"),
    (re.compile(r"(model\.language_model\.embed_tokens|lm_head)\."), "embeddings"),
    (re.compile(r"score\."), "times"),
)


@dataclass(frozen=True, slots=True)
class TrainableGroup:
    """Parameters with one learning rate, by their names in the model."""

    name: str
    lr: float
    names: tuple[str, ...]
    lora: Lora | None = None


def partition(model: nn.Module) -> dict[str, list[str]]:
    """Group label (`projector`, `decoder_layers[3]`) to parameter names; layers in order.

    Raises ValueError for a parameter that belongs to no group, so that none is skipped silently.
    """
    layers = {stack: _depth(model, stack) for stack in STACKS}
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for name, _ in model.named_parameters():
        groups[_label(name, layers)].append(name)
    return dict(sorted(groups.items(), key=lambda item: _sort_key(item[0])))


def stack_of(name: str) -> str:
    """The group of a parameter, without the number of its layer; "" for one of none."""
    found = next((label for pattern, label in _PATTERNS if pattern.match(name)), "")
    return found.partition(":")[0]


def _sort_key(label: str) -> tuple[int, int]:
    stack, _, number = label.partition("[")
    return GROUP_NAMES.index(stack), int(number.rstrip("]") or 0)


def _depth(model: nn.Module, stack: str) -> int:
    pattern = next(p for p, label in _PATTERNS if label == stack)
    return 1 + max((int(m[1]) for name, _ in model.named_parameters() if (m := pattern.match(name))), default=-1)


def _label(name: str, layers: dict[str, int]) -> str:
    for pattern, label in _PATTERNS:
        if match := pattern.match(name):
            stack, _, last = label.partition(":")
            if stack not in STACKS:
                return stack
            return f"{stack}[{layers[stack] - 1 if last else int(match[1])}]"
    raise ValueError(f"parameter {name} belongs to no group")


def select(model: nn.Module, groups: dict[GroupName, GroupTraining]) -> list[TrainableGroup]:
    """The groups a stage trains; adds adapters to those with `lora`. Raises UsageError."""
    for name, config in groups.items():
        if config.lora is not None:
            if name not in _ADAPTED:
                raise UsageError(
                    f"groups.{name}.lora: only {', '.join(_ADAPTED)} can have adapters: train it without lora"
                )
            adapters.add(model, members(model, name, config.top), config.lora)
    return [
        TrainableGroup(
            name,
            config.lr,
            tuple(p for p in members(model, name, config.top) if config.lora is None or adapters.is_adapter(p)),
            config.lora,
        )
        for name, config in groups.items()
    ]


def members(model: nn.Module, name: GroupName, top: int | float | None) -> list[str]:
    """Names of a group's parameters, `top` resolved against this model's depth. Raises UsageError."""
    labels = partition(model)
    if name == "times" and name not in labels:
        raise UsageError("groups.times: only an aligner has it: set model.task: align, or remove the group")
    if name in STACKS:
        depth = _depth(model, name)
        count = depth if top is None else _resolve(top, depth)
        return [p for i in range(depth - count, depth) for p in labels[f"{name}[{i}]"]]
    if top is not None:
        raise UsageError(f"groups.{name}.top: only {' and '.join(STACKS)} have layers")
    return labels[name]


def _resolve(top: int | float, depth: int) -> int:
    if isinstance(top, float):
        return max(1, round(top * depth))
    if top > depth:
        raise UsageError(f"top: {top} layers, but the model has only {depth}; a share such as 0.5 fits any depth")
    return top


def set_trainable(model: nn.Module, groups: list[TrainableGroup], frozen_dtype: torch.dtype) -> None:
    """Trainable parameters become fp32, frozen ones `frozen_dtype`: below fp32, small updates round to zero."""
    trainable = {name for group in groups for name in group.names}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in trainable)
        parameter.grad = None
        parameter.data = parameter.data.to(torch.float32 if name in trainable else frozen_dtype)


@dataclass(frozen=True, slots=True)
class TrainedGroup:
    """A parameter group as a stage trains it. lr: its highest rate; tensors, parameters: their numbers; note: on
    adapters and tied weights."""

    group: str
    lr: float
    tensors: int
    parameters: int
    note: str = ""


def describe(model: nn.Module, groups: list[TrainableGroup]) -> list[TrainedGroup]:
    """Numbers of trainable tensors and parameters of each group, for reports and the preflight."""
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    is_tied = hasattr(model, "lm_head") and bool(getattr(getattr(model, "config", None), "tie_word_embeddings", False))
    return [
        TrainedGroup(
            group.name, group.lr, len(group.names), sum(sizes[name] for name in group.names), _note(group, is_tied)
        )
        for group in groups
    ]


def _note(group: TrainableGroup, is_tied: bool) -> str:
    if group.lora is not None:
        return f"{'DoRA' if group.lora.dora else 'LoRA'} of rank {group.lora.rank}"
    return "tied: also trains the output head (lm_head)" if group.name == "embeddings" and is_tied else ""
