"""Losses at the labels, including the output head: logits are computed for a block of labels at a time and overwritten
by their gradient, so that memory never holds all logits or all their gradients (the idea of Liger's fused linear
cross-entropy, Hsu et al. 2024, arXiv:2410.10989, section 3.2, on any device)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

AT_ONCE = 2**27  # logits computed together: half a GiB in fp32


@dataclass(frozen=True, slots=True)
class SoftTargets:
    """The distribution of another model at the labels: its hidden states [labels, its width] and its head [vocabulary,
    its width]. weights: of this distribution, fp32 [labels] or one for all."""

    hidden: torch.Tensor
    head: torch.Tensor
    weights: torch.Tensor | float


class FusedLoss(nn.Module):
    """Summed losses of hidden states through an output head. It holds the head's weight itself, which may be sharded,
    because weights are gathered for the module that owns them."""

    def __init__(self, weight: nn.Parameter) -> None:
        super().__init__()
        self.weight = weight
        self.soft_part = torch.zeros(())  # the divergence in the last loss

    def forward(
        self,
        hidden: torch.Tensor,
        labels: torch.Tensor,
        weights: torch.Tensor | float = 1.0,
        soft: SoftTargets | None = None,
    ) -> torch.Tensor:
        """hidden [labels, width], labels int64 [labels]; a scalar in fp32. Products are computed in autocast's dtype.

        Every label adds its weight (fp32 [labels] or one for all) times its cross-entropy, and its soft weight times
        the Kullback-Leibler divergence KL(other model || prediction).
        """
        loss: torch.Tensor
        loss, self.soft_part = _FusedLossFunction.apply(hidden, self.weight, labels, weights, soft)  # type: ignore[no-untyped-call]
        return loss


class _FusedLossFunction(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        labels: torch.Tensor,
        weights: torch.Tensor | float,
        soft: SoftTargets | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        kind = hidden.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
        inputs, head = hidden.to(dtype), weight.to(dtype)
        grad_hidden = torch.empty_like(inputs) if ctx.needs_input_grad[0] else None
        grad_weight = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None
        loss = torch.zeros((), device=hidden.device)
        soft_part = torch.zeros((), device=hidden.device)
        block_size = max(1, AT_ONCE // len(weight) // (1 if soft is None else 2))
        with torch.autocast(kind, enabled=False):
            for start in range(0, len(labels), block_size):
                rows = slice(start, start + block_size)
                block, targets, label_weights = inputs[rows], labels[rows, None], _column(weights, rows)
                logits = (block @ head.T).float()
                maximum = logits.amax(dim=1, keepdim=True)
                loss += (label_weights * (maximum - logits.gather(1, targets))).sum()
                logits.sub_(maximum)
                soft_targets, soft_weights = None, 0.0
                if soft is not None:
                    soft_targets, soft_weights = _soft_distribution(soft, rows), _column(soft.weights, rows)
                if soft_targets is not None:
                    cross = (soft_targets * logits).sum(dim=1, keepdim=True)
                    divergence = (soft_weights * (_negative_entropy(soft_targets) - cross)).sum()
                    loss += divergence
                    soft_part += divergence
                exponentials = logits.exp_()
                total = exponentials.sum(dim=1, keepdim=True)
                loss += ((label_weights + soft_weights) * total.log()).sum()
                if soft_targets is not None:
                    soft_part += (soft_weights * total.log()).sum()
                # Gradient times total: the prediction times both weights, minus both targets times their weights. The
                # division by total is done later, on smaller matrices.
                if soft_targets is not None or isinstance(label_weights, torch.Tensor) or label_weights != 1.0:
                    exponentials.mul_(label_weights + soft_weights)
                gradient = exponentials.scatter_add_(1, targets, -label_weights * total)
                if soft_targets is not None:
                    gradient.addcmul_(soft_targets, soft_weights * total, value=-1)
                gradient = gradient.to(dtype)
                if grad_hidden is not None:
                    grad_hidden[rows] = (gradient @ head) / total
                if grad_weight is not None:
                    _add_product(grad_weight, gradient.T, (block / total).to(dtype))
        ctx.save_for_backward(grad_hidden, grad_weight)
        ctx.dtype = hidden.dtype
        ctx.mark_non_differentiable(soft_part)
        return loss, soft_part

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor, _: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        grad_hidden, grad_weight = ctx.saved_tensors
        return (
            None if grad_hidden is None else (grad_hidden * gradient).to(ctx.dtype),
            None if grad_weight is None else grad_weight.mul_(gradient),
            None,
            None,
            None,
        )


def _column(weights: torch.Tensor | float, rows: slice) -> Any:
    return weights[rows, None] if isinstance(weights, torch.Tensor) else weights


def _soft_distribution(soft: SoftTargets, rows: slice) -> torch.Tensor:
    """The other model's distribution, fp32 [some labels, vocabulary]."""
    return (soft.hidden[rows].to(soft.head.dtype) @ soft.head.T).float().softmax(dim=1)


def _negative_entropy(soft_targets: torch.Tensor) -> torch.Tensor:
    return torch.special.xlogy(soft_targets, soft_targets).sum(dim=1, keepdim=True)


def _add_product(total: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> None:
    """total += left @ right. A GPU accumulates in the precision of `total`, within the matrix product."""
    if total.is_cuda and left.dtype != total.dtype:
        torch.addmm(total, left, right, out_dtype=total.dtype, out=total)
    else:
        total += left @ right
