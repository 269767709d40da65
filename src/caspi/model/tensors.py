"""Changes or moves all tensors of a dataclass at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

import torch

T = TypeVar("T")


def each_tensor(holder: T, change: Callable[[torch.Tensor], torch.Tensor]) -> T:
    """The holder with `change` applied to every tensor in it, including those of nested dataclasses."""
    changed: dict[str, Any] = {}
    for entry in fields(holder):  # type: ignore[arg-type]
        value = getattr(holder, entry.name)
        if isinstance(value, torch.Tensor):
            changed[entry.name] = change(value)
        elif is_dataclass(value):
            changed[entry.name] = each_tensor(value, change)
    return replace(holder, **changed)  # type: ignore[type-var]


def to_device(holder: T, device: torch.device) -> T:
    """The holder on the device; the host does not wait if the memory is pinned."""
    return holder if device.type == "cpu" else each_tensor(holder, lambda t: t.to(device, non_blocking=True))
