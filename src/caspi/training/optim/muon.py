"""Muon and NorMuon for the matrices inside blocks, AdamW for everything else, as one optimizer.

Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon) steps along the nearest orthogonal matrix to the momentum,
computed by five Newton-Schulz iterations. Its step is scaled to the root mean square of AdamW's (Liu et al. 2025,
arXiv:2502.16982, equation 4), so that a recipe's learning rates have the same meaning. NorMuon (Li et al. 2025,
arXiv:2510.05491, algorithm 1) then divides every row by the running root mean square of its updates.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim.adamw import adamw

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5
_RMS = 0.2  # of AdamW's updates
_MAX_BATCH_ELEMENTS = 2**27  # elements of the matrices of one shape that are orthogonalised together


class Muon(torch.optim.Optimizer):
    """Groups with a `momentum` use Muon, or NorMuon if they also have `rows`, the decay of each row's mean square. The
    other groups use AdamW. Weight decay is AdamW's in all groups. Matrices may be sharded by FSDP2."""

    def __init__(
        self,
        groups: list[dict[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.98),
        weight_decay: float = 0.01,
        eps: float = 1e-8,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "weight_decay": weight_decay, "eps": eps}
        # With `fused`, torch keeps the steps of a loaded state on the device of their parameters.
        super().__init__(groups, defaults | {"fused": True})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """A parameter without a gradient does not change."""
        for group in self.param_groups:
            if "momentum" in group:
                self._step_matrices(group)
            else:
                self._step_others(group)

    def _step_others(self, group: dict[str, Any]) -> None:
        parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
        for parameter in parameters:
            if not self.state[parameter]:
                self.state[parameter] = {
                    "step": torch.zeros((), device=parameter.device),
                    "exp_avg": torch.zeros_like(parameter),
                    "exp_avg_sq": torch.zeros_like(parameter),
                }
        states = [self.state[parameter] for parameter in parameters]
        adamw(
            parameters,
            [parameter.grad for parameter in parameters],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            max_exp_avg_sqs=[],
            state_steps=[state["step"] for state in states],
            fused=True,
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )

    def _step_matrices(self, group: dict[str, Any]) -> None:
        for matrices in _batches(parameter for parameter in group["params"] if parameter.grad is not None):
            directions = [self._momentum(matrix, group["momentum"]) for matrix in matrices]
            updates = orthogonal(torch.stack(directions))
            if "rows" in group:
                states = [self.state[matrix] for matrix in matrices]
                updates = _normalised(updates, states, group["rows"])
            else:
                updates *= _RMS * max(matrices[0].shape) ** 0.5
            for matrix, update in zip(matrices, updates, strict=True):
                matrix.mul_(1 - group["lr"] * group["weight_decay"])
                matrix.sub_(_local_part(matrix, update.to(matrix.dtype)), alpha=group["lr"])

    def _momentum(self, matrix: torch.Tensor, beta: float) -> torch.Tensor:
        """The step direction with Nesterov momentum, as a whole matrix."""
        state, gradient = self.state[matrix], matrix.grad
        assert gradient is not None
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(matrix)
        state["momentum"].lerp_(gradient, 1 - beta)
        direction = gradient.lerp(state["momentum"], beta)
        return direction.full_tensor() if isinstance(direction, DTensor) else direction


def orthogonal(matrices: torch.Tensor) -> torch.Tensor:
    """[n, rows, columns]: for each matrix approximately U V' of its singular value decomposition; the singular values
    end up between 0.7 and 1.2 instead of 1. Computes in bf16 on a GPU."""
    x = matrices.to(torch.bfloat16 if matrices.is_cuda else torch.float32)
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    a, b, c = _COEFFICIENTS
    for _ in range(_ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if tall else x).float()


def orthogonal_flops(rows: int, columns: int) -> float:
    """FLOPs of orthogonalising one matrix: three products per iteration."""
    short, long = sorted((rows, columns))
    return _ITERATIONS * (4.0 * short**2 * long + 2.0 * short**3)


def _normalised(updates: torch.Tensor, states: list[Any], beta: float) -> torch.Tensor:
    """Rows of [n, rows, columns] divided by their running root mean square; each matrix is scaled to AdamW's size."""
    squares = updates.square().mean(dim=2)
    for state, square in zip(states, squares, strict=True):
        state["rows"] = state["rows"].lerp_(square, 1 - beta) if "rows" in state else square * (1 - beta)
    updates = updates / (torch.stack([state["rows"] for state in states]).sqrt() + 1e-8)[:, :, None]
    size = updates.shape[1] * updates.shape[2]
    return updates * (_RMS * size**0.5 / updates.norm(dim=(1, 2), keepdim=True).clamp(min=1e-8))


def _batches(matrices: Iterable[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    """Lists of matrices of the same shape that are processed together."""
    by_shape: defaultdict[torch.Size, list[torch.Tensor]] = defaultdict(list)
    for matrix in matrices:
        by_shape[matrix.shape].append(matrix)
    for shape, of_shape in by_shape.items():
        count = max(1, _MAX_BATCH_ELEMENTS // shape.numel())
        yield from (of_shape[start : start + count] for start in range(0, len(of_shape), count))


def _local_part(matrix: torch.Tensor, update: torch.Tensor) -> torch.Tensor:
    """The part of an update for this process's shard of the matrix."""
    if isinstance(matrix, DTensor):
        return distribute_tensor(update, matrix.device_mesh, matrix.placements)
    return update
