"""AdamW whose moments are kept in eight bits each (Dettmers et al. 2022, arXiv:2110.02861), by torchao: six bytes a
parameter less. Its moments are tensors of a kind of their own; here they become plain ones in a checkpoint and back."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import Any

import torch
from torch import distributed
from torch.distributed.tensor import DTensor, distribute_tensor

from caspi.errors import MissingDependency

_SIGNED = {"exp_avg": True, "exp_avg_sq": False}


def require_torchao() -> None:
    """Raises MissingDependency where it is not installed."""
    if importlib.util.find_spec("torchao") is None:
        raise MissingDependency("optimizer adamw8bit", package="torchao", extra="adamw8bit")


def adamw8bit(groups: list[dict[str, Any]], betas: tuple[float, float]) -> torch.optim.Optimizer:
    """torchao's AdamW8bit over `groups`; parameters may be spread by FSDP2. Raises MissingDependency."""
    require_torchao()
    from torchao.optim import AdamW8bit
    from torchao.optim.subclass_8bit import OptimState8bit

    class Plain(AdamW8bit):  # type: ignore[misc]
        """State in plain tensors. Of whole parameters: codes and the scales of their blocks; the table that codes stand
        for is theirs. Of spread ones: moments in fp32, from which each process gets its codes and scales again, on the
        first process only; there both methods are collective."""

        def state_dict(self) -> dict[str, Any]:
            found: dict[str, Any] = super().state_dict()
            rates = [{name: _number(value) for name, value in group.items()} for group in found["param_groups"]]
            state = {number: dict(_plain(of, OptimState8bit)) for number, of in found["state"].items()}
            return {"state": state, "param_groups": rates}

        def load_state_dict(self, state: dict[str, Any]) -> None:
            parameters = [p for group in self.param_groups for p in group["params"]]
            for number, of in state["state"].items():
                parameter = parameters[number]
                spread = isinstance(parameter, DTensor)
                self.state[parameter] = (
                    self._spread(of, parameter) if spread else _packed(of, parameter, OptimState8bit)
                )
            for group, stored in zip(self.param_groups, state["param_groups"], strict=True):
                rate = group["lr"].fill_(stored["lr"])
                group.update({name: value for name, value in stored.items() if name != "params"} | {"lr": rate})

        @torch.no_grad()
        def _spread(self, of: dict[str, torch.Tensor], parameter: DTensor) -> dict[str, Any]:
            """Each process's part of whole moments."""
            found: dict[str, Any] = {"step": of["step"]}
            for name, signed in _SIGNED.items():
                whole = of[name].to(parameter.device)
                piece = distribute_tensor(whole, parameter.device_mesh, parameter.placements)
                found[name] = self._new_buffer(parameter, signed)
                found[name].to_local().copy_(piece.to_local())
            return found

    return Plain(groups, betas=betas)


def _number(value: Any) -> Any:
    """torchao keeps learning rates in tensors, and schedules take them over."""
    return float(value) if isinstance(value, torch.Tensor) else value


def _plain(of: dict[str, Any], kind: Any) -> Iterator[tuple[str, torch.Tensor]]:
    for name, value in of.items():
        if isinstance(value, DTensor):
            yield name, _whole(value, kind)
        elif isinstance(value, kind):
            yield f"{name}.codes", value.codes
            yield f"{name}.scale", value.scale
        else:
            yield name, value


@torch.no_grad()
def _whole(moment: DTensor, kind: Any) -> torch.Tensor:
    """A moment in one piece and in fp32, in the first process's host memory; nothing in the others'."""
    held = moment.to_local()
    held = held.dequantize(torch.float32) if isinstance(held, kind) else held
    spread = DTensor.from_local(
        held, moment.device_mesh, moment.placements, run_check=False, shape=moment.shape, stride=moment.stride()
    )
    whole = spread.full_tensor()
    return whole.cpu() if distributed.get_rank() == 0 else whole.new_empty(0)


def _packed(of: dict[str, torch.Tensor], like: torch.Tensor, kind: Any) -> dict[str, Any]:
    """What `_plain` took apart, on the device of its parameter; the count of steps stays on the host, as torchao has
    it."""
    found = {name: value if name == "step" else value.to(like.device) for name, value in of.items()}
    for name, signed in _SIGNED.items():
        if f"{name}.codes" in found:
            codes, scale = found.pop(f"{name}.codes"), found.pop(f"{name}.scale")
            block = codes.numel() // scale.numel()
            moment = kind.zeros(codes.shape, signed, block, like.device, like.dtype)
            moment.codes.copy_(codes)
            moment.scale.copy_(scale)
            found[name] = moment
    return found
