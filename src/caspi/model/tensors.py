"""Dataclasses that hold tensors, moved as one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

import torch

T = TypeVar("T")


def each_tensor(holder: T, change: Callable[[torch.Tensor], torch.Tensor]) -> T:
    """The holder with every tensor in it changed, those of dataclasses inside it included."""
    changed: dict[str, Any] = {}
    for entry in fields(holder):  # type: ignore[arg-type]
        value = getattr(holder, entry.name)
        if isinstance(value, torch.Tensor):
            changed[entry.name] = change(value)
        elif is_dataclass(value):
            changed[entry.name] = each_tensor(value, change)
    return replace(holder, **changed)  # type: ignore[type-var]


def to_device(holder: T, device: torch.device) -> T:
    """The holder on the device; the host does not wait where its memory is pinned."""
    return holder if device.type == "cpu" else each_tensor(holder, lambda t: t.to(device, non_blocking=True))
