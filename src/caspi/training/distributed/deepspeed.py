"""ZeRO stage 3 by DeepSpeed (Rajbhandari et al. 2020, arXiv:1910.02054): its engine gathers weights and sums
gradients; caspi decides when a step is taken. The functions here are collective: all processes call them, or none."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from caspi.errors import UsageError, install

_MOMENTS = ("exp_avg", "exp_avg_sq")


def deepspeed() -> Any:
    """The library, which is an optional extra. Raises UsageError."""
    try:
        import deepspeed as library
        from deepspeed.utils import logger
    except ImportError as error:
        raise UsageError(f"ZeRO needs DeepSpeed ({error}): {install('deepspeed')}") from error
    logger.setLevel("ERROR")
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed")  # it uses deprecated names
    library.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # not used here, but it would be compiled
    return library


class Zero3(torch.optim.Optimizer):
    """A sharded objective with AdamW on its shards, with the interface of an optimizer.

    objective: unsharded, on this process's device; this class shards it. adamw: over its trained parameters.
    """

    def __init__(self, objective: nn.Module, adamw: torch.optim.Optimizer, max_grad_norm: float) -> None:
        self._trained = {name: p for name, p in objective.named_parameters() if p.requires_grad}
        self.engine, *_ = deepspeed().initialize(
            model=objective,
            optimizer=adamw,
            config={
                "train_micro_batch_size_per_gpu": 1,
                "managed_gradient_accumulation": False,  # the plan knows where a step ends
                "gradient_clipping": max_grad_norm,
                "zero_allow_untested_optimizer": True,
                # Small parameters are sharded too: the engine would not use the moving average in place of a whole one.
                "zero_optimization": {"stage": 3, "overlap_comm": False, "stage3_param_persistence_threshold": 0},
            },
        )
        self._adamw = adamw
        self.defaults, self.state, self.param_groups = adamw.defaults, adamw.state, adamw.param_groups
        self._pending = False

    def backward(self, loss: torch.Tensor) -> None:
        """Adds to the shards of the gradient, which are averages over processes."""
        self.engine.backward(loss)
        self._pending = True

    @torch.no_grad()
    def scale(self, factor: float) -> float:
        """Multiplies the accumulated gradient by `factor`. Returns its norm."""
        from deepspeed.utils import safe_get_local_grad, safe_set_local_grad

        squares = torch.zeros((), dtype=torch.float64, device=self.engine.device)
        for parameter in self._trained.values():
            gradient = safe_get_local_grad(parameter) * factor
            safe_set_local_grad(parameter, gradient)
            squares += gradient.double().square().sum()
        dist.all_reduce(squares)
        return float(squares.sqrt())

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Clips and steps; without a gradient, changes nothing."""
        if self._pending:
            self.engine.step()
        self._pending = False

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.engine.optimizer.zero_grad()
        self._pending = False

    def full_state(self) -> dict[str, Any]:
        """AdamW's whole moments by parameter, its steps and rates: the same for any number of processes."""
        from deepspeed.utils import safe_get_full_optimizer_state

        moments = {
            name: {key: safe_get_full_optimizer_state(parameter, key).cpu() for key in _MOMENTS}
            for name, parameter in self._trained.items()
        }
        steps = {float(state["step"]) for state in self._adamw.state.values()}
        assert len(steps) == 1, "shards of one optimizer have taken different numbers of steps"
        return {"moments": moments, "step": steps.pop(), "lr": [group["lr"] for group in self.param_groups]}

    def load_full_state(self, state: Mapping[str, Any]) -> None:
        """Loads what `full_state` returned. Raises KeyError if its parameters are others."""
        from deepspeed.utils import safe_set_local_optimizer_state

        for flat in self.engine.optimizer.fp32_partitioned_groups_flat:
            self._adamw.state[flat] = {
                "step": torch.tensor(state["step"], device=flat.device),
                **{key: torch.zeros_like(flat) for key in _MOMENTS},
            }
        for group, rate in zip(self.param_groups, state["lr"], strict=True):
            group["lr"] = rate
        for name, parameter in self._trained.items():
            for key in _MOMENTS:
                safe_set_local_optimizer_state(parameter, local_part(parameter, state["moments"][name][key]), key)

    def end(self) -> None:
        """Releases the model: the next stage creates its own engine."""
        self.engine.destroy()


def is_sharded(parameter: torch.Tensor) -> bool:
    """Whether ZeRO shards this parameter."""
    return hasattr(parameter, "ds_tensor")


def full_parameter(parameter: Any) -> torch.Tensor:
    """The whole parameter, gathered."""
    from deepspeed import zero

    with zero.GatheredParameters([parameter]):
        return torch.Tensor(parameter.detach()).clone()


def local_part(parameter: Any, value: torch.Tensor) -> torch.Tensor:
    """This process's shard of a whole value for the parameter, padded with zeros at the end."""
    size = parameter.ds_tensor.numel()
    flat = value.flatten()[dist.get_rank() * size : (dist.get_rank() + 1) * size].to(parameter.ds_tensor.device)
    return nn.functional.pad(flat, (0, size - len(flat)))
