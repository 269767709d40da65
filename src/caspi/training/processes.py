"""The processes of a run: one, or as many as torchrun started."""

from __future__ import annotations

import torch
from accelerate import PartialState


def processes() -> PartialState:
    """Rank, number of processes and device. Without `cpu=True` accelerate ignores torchrun where there is no GPU."""
    return PartialState(cpu=not torch.cuda.is_available())
