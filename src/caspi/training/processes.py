"""The processes of a run: one, or as many as torchrun started."""

from __future__ import annotations

import os

import torch
from accelerate import PartialState
from torch import distributed


def processes() -> PartialState:
    """Rank, number of processes and device. Without `cpu=True` accelerate ignores torchrun where there is no GPU."""
    # Micro-batches differ in size: memory that grows in place is not lost to fragments. Read when CUDA starts.
    os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")
    return PartialState(cpu=not torch.cuda.is_available())


def compute_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """bf16 under autocast, or None for plain fp32."""
    if precision == "auto":
        precision = "bf16" if device.type == "cuda" else "fp32"
    return torch.bfloat16 if precision == "bf16" else None


def part() -> None:
    """Ends what the processes share, once all are done: one that exits while others still listen may abort."""
    if distributed.is_initialized():
        distributed.barrier()
        distributed.destroy_process_group()
