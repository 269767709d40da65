"""Access to weights that FSDP2 or ZeRO stage 3 shards over processes, as if they were whole. These functions are
collective: all processes call them, or none."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from torch.distributed.tensor import DTensor, distribute_tensor

from caspi.model.aligner import TrainedModel
from caspi.model.forward import use_packed_attention
from caspi.model.loading import cast
from caspi.training.distributed import deepspeed
from caspi.training.distributed.processes import sharding


def shard_on_cpu(accelerator: Accelerator) -> None:
    """Applies accelerate's FSDP2 configuration to processes without GPUs too, where accelerate itself ignores it."""
    if sharding() == "fsdp2" and accelerator.distributed_type == DistributedType.MULTI_CPU:
        accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin()
        # Set both, because creating an AcceleratorState copies the first into the second.
        PartialState().distributed_type = accelerator.state.distributed_type = DistributedType.FSDP


@torch.no_grad()
def full_tensor(parameter: torch.Tensor) -> torch.Tensor:
    """The whole parameter, gathered if it is sharded."""
    if deepspeed.is_sharded(parameter):
        return deepspeed.full_parameter(parameter)
    if isinstance(parameter, DTensor):
        return parameter.full_tensor()
    return parameter.detach()


@torch.no_grad()
def load_shard(parameter: torch.Tensor, value: torch.Tensor) -> None:
    """Sets a parameter to a whole value; each process sets its shard."""
    if deepspeed.is_sharded(parameter):
        value = deepspeed.local_part(parameter, value)
    if isinstance(parameter, DTensor):
        value = distribute_tensor(value.to(parameter.device), parameter.device_mesh, parameter.placements)
    local_shard(parameter).copy_(value)


def is_sharded(parameter: torch.Tensor) -> bool:
    """Whether this process holds only a part of the parameter."""
    return isinstance(parameter, DTensor) or deepspeed.is_sharded(parameter)


def local_shard(parameter: torch.Tensor) -> torch.Tensor:
    """This process's shard of a parameter: changing it changes the model."""
    return parameter.ds_tensor if deepspeed.is_sharded(parameter) else parameter  # type: ignore[attr-defined]


@contextlib.contextmanager
def unsharded_copy(loaded: TrainedModel, dtype: torch.dtype | None) -> Iterator[TrainedModel]:
    """A model that this process can run alone: the model itself if it is whole, otherwise a copy in `dtype`."""
    parameters = dict(loaded.model.named_parameters())
    if not any(is_sharded(parameter) for parameter in parameters.values()):
        yield loaded
        return
    config = type(loaded.model.config).from_dict(loaded.model.config.to_dict())  # with transformers' own attention
    with torch.device(next(iter(parameters.values())).device):
        model = loaded.architecture(config)
    cast(model, dtype or torch.float32)
    use_packed_attention(model)
    for name, parameter in model.named_parameters():
        load_shard(parameter, full_tensor(parameters[name]))
    yield replace(loaded, model=model)
