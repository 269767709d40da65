"""Strategies for sharing weights and gradients between the processes of a run, with one interface."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import load_fsdp_optimizer, save_fsdp_optimizer
from torch import nn

from caspi.training.checkpoint import files as checkpoints
from caspi.training.distributed.deepspeed import Zero3
from caspi.training.distributed.processes import processes, sharding
from caspi.training.distributed.sharding import shard_on_cpu
from caspi.training.optim import gradients


class Strategy:
    """Data parallelism: every process holds the whole model. Gradients are summed once per step, not during its
    backward passes as in DDP: a process that runs out of memory does not block the others, and gradients are stored
    only once.

    model: called for the forward pass. sharded: whether each process holds only a part of every weight, so that all
    processes must run equally many passes.
    """

    sharded = False

    def __init__(self, objective: nn.Module, optimizer: Any) -> None:
        self.model, self.optimizer = objective, optimizer

    def trained(self) -> list[torch.Tensor]:
        """The parameters that the optimizer steps."""
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    def backward(self, loss: torch.Tensor) -> None:
        """Adds to this process's gradients."""
        loss.backward()  # type: ignore[no-untyped-call]

    def finish_gradients(self, loss: torch.Tensor, factor: float) -> tuple[float, float]:
        """Sums the gradients over all processes and multiplies them by `factor`, after a step's micro-batches. Returns
        the loss times the factor, and the norm of the gradient; the host waits for both at once."""
        if processes().num_processes > 1:
            gradients.sum_over_processes(self.trained())
        return self._scaled(loss, factor, factor)

    def _scaled(self, loss: torch.Tensor, loss_factor: float, factor: float) -> tuple[float, float]:
        gradients.scale(self.trained(), factor)
        norm = gradients.norm(self.trained()).to(loss)
        values: list[float] = torch.stack([loss * loss_factor, norm]).tolist()
        return values[0], values[1]

    def clip(self, norm: float, limit: float) -> None:
        """Scales the gradient, whose norm is `norm`, down to a norm of at most `limit`."""
        if norm > limit:
            gradients.scale(self.trained(), limit / norm)

    def step(self) -> None:
        """Updates the weights and clears the gradients."""
        self.optimizer.step()
        self.optimizer.zero_grad()

    def discard_gradients(self) -> None:
        """Clears the gradients of this effective batch without a step."""
        self.optimizer.zero_grad()

    def save_optimizer(self, folder: Path, *, is_writer: bool) -> None:
        """Saves the optimizer's state into a checkpoint. All processes call it, one of them writes."""
        if is_writer:
            checkpoints.save_optimizer(folder, self.optimizer.state_dict())

    def load_optimizer(self, folder: Path) -> None:
        """Loads what `save_optimizer` wrote."""
        self.optimizer.load_state_dict(checkpoints.optimizer_state(folder))

    def close(self) -> None:
        """Releases the model, so that the next stage can load it."""


class FullySharded(Strategy):
    """torch's FSDP2, set up by accelerate from the environment that `accelerate launch` creates."""

    sharded = True

    def __init__(self, objective: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        # No mixed precision here: the objective itself computes under autocast.
        self._accelerator = Accelerator(cpu=not torch.cuda.is_available(), mixed_precision="no")
        shard_on_cpu(self._accelerator)
        super().__init__(*self._accelerator.prepare(objective, optimizer))

    def finish_gradients(self, loss: torch.Tensor, factor: float) -> tuple[float, float]:
        return self._scaled(loss, factor, factor * processes().num_processes)  # they were averaged

    def save_optimizer(self, folder: Path, *, is_writer: bool) -> None:
        if self._optimizer_saves_whole_state():
            state = self.optimizer.state_dict()
            if is_writer:
                checkpoints.save_optimizer(folder, state)
        else:
            save_fsdp_optimizer(
                self._accelerator.state.fsdp_plugin, self._accelerator, self.optimizer, self.model, str(folder)
            )

    def load_optimizer(self, folder: Path) -> None:
        if self._optimizer_saves_whole_state():
            super().load_optimizer(folder)
        else:
            load_fsdp_optimizer(
                self._accelerator.state.fsdp_plugin, self._accelerator, self.optimizer, self.model, str(folder)
            )

    def _optimizer_saves_whole_state(self) -> bool:
        """Whether the optimizer has 8-bit moments, which FSDP2 cannot gather."""
        return hasattr(getattr(self.optimizer, "optimizer", self.optimizer), "saves_whole_state")


class ZeroStage3(Strategy):
    """DeepSpeed's ZeRO stage 3; its engine sums and clips the gradients and steps."""

    sharded = True

    def __init__(self, objective: nn.Module, optimizer: torch.optim.Optimizer, max_grad_norm: float) -> None:
        zero = Zero3(objective, optimizer, max_grad_norm)
        super().__init__(zero.engine, zero)

    def backward(self, loss: torch.Tensor) -> None:
        self.optimizer.backward(loss)

    def finish_gradients(self, loss: torch.Tensor, factor: float) -> tuple[float, float]:
        return float(loss) * factor, self.optimizer.scale(factor * processes().num_processes)  # they were averaged

    def clip(self, norm: float, limit: float) -> None:
        pass  # the engine does this

    def step(self) -> None:
        self.optimizer.step()  # the engine clears its gradients itself

    def save_optimizer(self, folder: Path, *, is_writer: bool) -> None:
        state = self.optimizer.full_state()
        if is_writer:
            torch.save(state, folder / "optimizer.pt")

    def load_optimizer(self, folder: Path) -> None:
        self.optimizer.load_full_state(torch.load(folder / "optimizer.pt", mmap=True, weights_only=True))

    def close(self) -> None:
        self.optimizer.end()


def strategy(objective: nn.Module, optimizer: torch.optim.Optimizer, max_grad_norm: float) -> Strategy:
    """The strategy that the environment selects (`processes.sharding`); a single process holds the whole model."""
    kind = sharding() if processes().num_processes > 1 else "none"
    if kind == "zero3":
        return ZeroStage3(objective, optimizer, max_grad_norm)
    return FullySharded(objective, optimizer) if kind == "fsdp2" else Strategy(objective, optimizer)
