"""Gradients of a step after all its micro-batches: sum over processes, scaling, norm."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist

from caspi.training.distributed.sharding import full_tensor


def sum_over_processes(parameters: Sequence[torch.Tensor]) -> None:
    """Sums every gradient over all processes; a missing gradient counts as zero."""
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    pending = [dist.all_reduce(parameter.grad, async_op=True) for parameter in parameters]
    for reduction in pending:
        reduction.wait()


def scale(parameters: Sequence[torch.Tensor], factor: float) -> None:
    """Multiplies every gradient; parameters without one are skipped."""
    if factor != 1.0 and (gradients := _gradients_of(parameters)):
        torch._foreach_mul_(gradients, factor)


def norm(parameters: Sequence[torch.Tensor]) -> torch.Tensor:
    """The norm of all gradients together, on the device, so that the host does not wait for it."""
    return full_tensor(torch.nn.utils.get_total_norm(_gradients_of(parameters)))


def _gradients_of(parameters: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    return [parameter.grad for parameter in parameters if parameter.grad is not None]
