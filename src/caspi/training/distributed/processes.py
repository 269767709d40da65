"""The processes of a run: one, or those that torchrun or accelerate started, and how they share the weights."""

from __future__ import annotations

import os
from typing import Literal

import torch
from accelerate import PartialState
from torch import distributed

from caspi.errors import UsageError

Sharding = Literal["none", "fsdp2", "zero3"]


def sharding() -> Sharding:
    """The sharding that `accelerate launch` sets in the environment. Raises UsageError if caspi does not support it."""
    stage = os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE")
    if stage is not None or os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true":
        _require_plain_zero3(stage)
        return "zero3"
    if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() != "true":
        return "none"
    if os.environ.get("FSDP_VERSION", "1") != "2":
        raise UsageError("caspi train shards by FSDP2: set fsdp_version: 2, as recipes/accelerate/fsdp2.yaml does")
    return "fsdp2"


def _require_plain_zero3(stage: str | None) -> None:
    unsupported = {
        "a DeepSpeed configuration file": os.environ.get("ACCELERATE_DEEPSPEED_CONFIG_FILE", "none"),
        "an offloaded optimizer": os.environ.get("ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE", "none"),
        "offloaded parameters": os.environ.get("ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE", "none"),
    }
    configured = [name for name, value in unsupported.items() if value.lower() != "none"]
    if stage != "3" or configured:
        name = configured[0] if configured else f"ZeRO stage {stage}"
        raise UsageError(f"caspi train does not support {name}: use recipes/accelerate/zero3.yaml")


def sharded() -> bool:
    """Whether each process of this run holds only a part of the weights."""
    return sharding() != "none"


def processes() -> PartialState:
    """Rank, number of processes and device. Without `cpu=True` accelerate ignores torchrun on machines without GPUs."""
    if sharding() == "zero3":  # distributed/deepspeed.py creates the engine; accelerate would also step it
        os.environ["ACCELERATE_USE_DEEPSPEED"] = "false"
    # Micro-batches differ in size: expandable segments avoid fragmentation. torch reads this when CUDA starts.
    os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")
    return PartialState(cpu=not torch.cuda.is_available())


def compute_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """bf16 under autocast, or None for plain fp32."""
    if precision == "auto":
        precision = "bf16" if device.type == "cuda" else "fp32"
    return torch.bfloat16 if precision == "bf16" else None


def shutdown_distributed() -> None:
    """Ends the process group once all processes are done: one that exits while others still communicate may abort."""
    if distributed.is_initialized():
        distributed.barrier()
        distributed.destroy_process_group()
