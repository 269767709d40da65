"""torchao's AdamW with 8-bit moments (Dettmers et al. 2022, arXiv:2110.02861), which saves six bytes per parameter. Its
moments are tensors of a special class; here they are converted to plain tensors for a checkpoint, and back."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import Any

import torch
from torch import distributed
from torch.distributed.tensor import DTensor, distribute_tensor

from caspi.errors import MissingDependency

_SIGNED = {"exp_avg": True, "exp_avg_sq": False}
_BLOCK = 256  # values that share a scale, as in torchao


def require_torchao() -> None:
    """Raises MissingDependency if torchao is not installed."""
    if importlib.util.find_spec("torchao") is None:
        raise MissingDependency("optimizer adamw8bit", package="torchao", extra="adamw8bit")


def adamw8bit(groups: list[dict[str, Any]], betas: tuple[float, float]) -> torch.optim.Optimizer:
    """torchao's AdamW8bit over `groups`; parameters may be sharded by FSDP2. Raises MissingDependency."""
    require_torchao()
    from torchao.optim import AdamW8bit
    from torchao.optim.subclass_8bit import OptimState8bit

    class Plain(AdamW8bit):  # type: ignore[misc]
        """Saves the state in plain tensors. For whole parameters: codes and the scales of their blocks; the
        codebook is torchao's. For sharded parameters: moments in fp32 and the scales, on the first process only, from
        which each process restores its codes exactly. With sharding both methods are collective."""

        saves_whole_state = True

        def state_dict(self) -> dict[str, Any]:
            stored: dict[str, Any] = super().state_dict()
            groups = [{name: _number(value) for name, value in group.items()} for group in stored["param_groups"]]
            state = {number: dict(_to_plain(values, OptimState8bit)) for number, values in stored["state"].items()}
            return {"state": state, "param_groups": groups}

        def load_state_dict(self, state: dict[str, Any]) -> None:
            parameters = [p for group in self.param_groups for p in group["params"]]
            for number, values in state["state"].items():
                parameter = parameters[number]
                if isinstance(parameter, DTensor):
                    self.state[parameter] = self._to_local(values, parameter)
                else:
                    self.state[parameter] = _from_plain(values, parameter, OptimState8bit)
            for group, stored in zip(self.param_groups, state["param_groups"], strict=True):
                rate = group["lr"].fill_(stored["lr"])
                group.update({name: value for name, value in stored.items() if name != "params"} | {"lr": rate})

        @torch.no_grad()
        def _to_local(self, values: dict[str, torch.Tensor], parameter: DTensor) -> dict[str, Any]:
            """This process's part of whole moments."""
            state: dict[str, Any] = {"step": values["step"]}
            for name, signed in _SIGNED.items():
                state[name] = self._new_buffer(parameter, signed)
                _fill(state[name].to_local(), values[name], values[f"{name}.scale"], parameter)
            return state

    return Plain(groups, betas=betas)


def _number(value: Any) -> Any:
    """A plain number: torchao keeps learning rates in tensors, and schedules copy them."""
    return float(value) if isinstance(value, torch.Tensor) else value


def _to_plain(values: dict[str, Any], kind: Any) -> Iterator[tuple[str, torch.Tensor]]:
    for name, value in values.items():
        if isinstance(value, DTensor):
            yield name, _whole(value, kind)
            yield f"{name}.scale", _scales(value, kind)
        elif isinstance(value, kind):
            yield f"{name}.codes", value.codes
            yield f"{name}.scale", value.scale
        else:
            yield name, value


@torch.no_grad()
def _whole(moment: DTensor, kind: Any) -> torch.Tensor:
    """The whole moment in fp32, in the first process's host memory; empty in the other processes."""
    local = moment.to_local()
    local = local.dequantize(torch.float32) if isinstance(local, kind) else local
    sharded = DTensor.from_local(
        local, moment.device_mesh, moment.placements, run_check=False, shape=moment.shape, stride=moment.stride()
    )
    whole = sharded.full_tensor()
    return whole.cpu() if distributed.get_rank() == 0 else whole.new_empty(0)


def _scales(moment: DTensor, kind: Any) -> torch.Tensor:
    """float32 [blocks of the whole moment]: scales; NaN for a part that is in fp32. A scale cannot be computed from a
    block's largest value, because the codebook's lowest value is not the negative of its highest."""
    local = moment.to_local()
    size_and_scale = (local.numel(), local.scale.cpu() if isinstance(local, kind) else None)
    parts: list[Any] = [None] * moment.device_mesh.size()
    distributed.all_gather_object(parts, size_and_scale, group=moment.device_mesh.get_group())
    scales, start = torch.full((-(-moment.numel() // _BLOCK),), float("nan")), 0
    for size, scale in parts:
        if scale is not None:
            scales[start // _BLOCK : start // _BLOCK + len(scale)] = scale
        start += size
    return scales


def _fill(local: Any, whole: torch.Tensor, scales: torch.Tensor, parameter: DTensor) -> None:
    """Fills this process's part of a moment from the whole moment. The saved scales are used if the blocks are the
    same; they differ if the number of processes changed."""
    mesh = parameter.device_mesh
    values = distribute_tensor(whole.to(parameter.device), mesh, parameter.placements).to_local()
    rows = -(-parameter.shape[0] // mesh.size()) * mesh.get_local_rank()  # of the processes before this one
    start = rows * (parameter.numel() // parameter.shape[0])
    scale = scales[start // _BLOCK : start // _BLOCK + values.numel() // _BLOCK].to(values.device)
    if not hasattr(local, "codes") or start % _BLOCK or scale.isnan().any():
        local.copy_(values)
        return
    from torchao.optim.quant_utils import quantize_8bit_with_qmap

    scaled = (values.reshape(-1, _BLOCK) / scale[:, None]).view(values.shape)
    local.codes.copy_(quantize_8bit_with_qmap(scaled, local.qmap))
    local.scale.copy_(scale)


def _from_plain(values: dict[str, torch.Tensor], parameter: torch.Tensor, kind: Any) -> dict[str, Any]:
    """The reverse of `_to_plain`, on the device of the parameter; the step count stays on the host, as in torchao."""
    state: dict[str, Any] = {
        name: value if name == "step" else value.to(parameter.device) for name, value in values.items()
    }
    for name, signed in _SIGNED.items():
        if f"{name}.codes" in state:
            codes, scale = state.pop(f"{name}.codes"), state.pop(f"{name}.scale")
            block = codes.numel() // scale.numel()
            moment = kind.zeros(codes.shape, signed, block, parameter.device, parameter.dtype)
            moment.codes.copy_(codes)
            moment.scale.copy_(scale)
            state[name] = moment
    return state
