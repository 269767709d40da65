"""Run by a test under torchrun: two processes with a sharded model skip a step, then take one.

python -m tests.training.distributed.step_left_out
"""

from __future__ import annotations

import os

import torch
from torch import nn

from caspi.training.distributed.deepspeed import Zero3, full_parameter
from caspi.training.distributed.processes import processes, shutdown_distributed


def model() -> nn.Sequential:
    torch.manual_seed(0)
    made = nn.Sequential(nn.Linear(5, 7), nn.GELU(), nn.Linear(7, 3))  # sizes that are not divisible by two processes
    made[0].weight.requires_grad_(False)
    return made


def adamw(over: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW([p for p in over.parameters() if p.requires_grad], lr=0.1)


def main() -> None:
    state = processes()
    inputs = torch.randn(4, 5, generator=torch.Generator().manual_seed(1))
    one, sharded = model(), model()
    expected, optimizer = adamw(one), Zero3(sharded, adamw(sharded), max_grad_norm=1.0)
    before = [full_parameter(parameter) for parameter in sharded.parameters()]

    optimizer.backward(optimizer.engine(inputs).sum() * float("nan"))
    assert not torch.isfinite(torch.tensor(optimizer.scale(1.0)))
    optimizer.zero_grad()
    optimizer.step()
    after = [full_parameter(parameter) for parameter in sharded.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(after, before, strict=True)), "the skipped step changed the weights"

    (one(inputs).square().sum()).backward()
    norm = nn.utils.clip_grad_norm_(one.parameters(), 1.0)
    expected.step()
    for row in range(2 * state.process_index, 2 * state.process_index + 2):  # two micro-batches on each process
        optimizer.backward(optimizer.engine(inputs[row]).square().sum())
    assert torch.isclose(torch.tensor(optimizer.scale(2.0)), norm, rtol=1e-6), (
        "the average over processes times their number"
    )
    optimizer.step()
    for parameter, known in zip(sharded.parameters(), one.parameters(), strict=True):
        assert torch.allclose(full_parameter(parameter), known, atol=1e-6)
    shutdown_distributed()
    os._exit(0)  # cleanup of libraries at interpreter exit has once aborted a finished process


if __name__ == "__main__":
    main()
