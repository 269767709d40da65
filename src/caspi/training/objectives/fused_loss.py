"""Losses at the labels, including the output head: logits are computed for some labels at a time and overwritten by
their gradient, so that all logits or all their gradients are never in memory together (the idea of Liger's fused linear
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
        self.soft_part = torch.zeros(())  # the divergence's part of the last loss

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
        of_hidden = torch.empty_like(inputs) if ctx.needs_input_grad[0] else None
        of_weight = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None
        loss = torch.zeros((), device=hidden.device)
        soft_part = torch.zeros((), device=hidden.device)
        rows = max(1, AT_ONCE // len(weight) // (1 if soft is None else 2))
        with torch.autocast(kind, enabled=False):
            for start in range(0, len(labels), rows):
                here = slice(start, start + rows)
                part, wanted, counts = inputs[here], labels[here, None], _column(weights, here)
                logits = (part @ head.T).float()
                most = logits.amax(dim=1, keepdim=True)
                loss += (counts * (most - logits.gather(1, wanted))).sum()
                logits.sub_(most)
                other, trust = (
                    (None, 0.0) if soft is None else (_other_distribution(soft, here), _column(soft.weights, here))
                )
                if other is not None:
                    apart = (trust * (_negative_entropy(other) - (other * logits).sum(dim=1, keepdim=True))).sum()
                    loss += apart
                    soft_part += apart
                powers = logits.exp_()
                total = powers.sum(dim=1, keepdim=True)
                loss += ((counts + trust) * total.log()).sum()
                if other is not None:
                    soft_part += (trust * total.log()).sum()
                # Gradient times total: the prediction times the weights, minus each kind of target times its weight.
                # The division by total is done later, on smaller matrices.
                if other is not None or isinstance(counts, torch.Tensor) or counts != 1.0:
                    powers.mul_(counts + trust)
                gradient = powers.scatter_add_(1, wanted, -counts * total)
                if other is not None:
                    gradient.addcmul_(other, trust * total, value=-1)
                gradient = gradient.to(dtype)
                if of_hidden is not None:
                    of_hidden[here] = (gradient @ head) / total
                if of_weight is not None:
                    _add_product(of_weight, gradient.T, (part / total).to(dtype))
        ctx.save_for_backward(of_hidden, of_weight)
        ctx.dtype = hidden.dtype
        ctx.mark_non_differentiable(soft_part)
        return loss, soft_part

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor, _: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        of_hidden, of_weight = ctx.saved_tensors
        return (
            None if of_hidden is None else (of_hidden * gradient).to(ctx.dtype),
            None if of_weight is None else of_weight.mul_(gradient),
            None,
            None,
            None,
        )


def _column(weights: torch.Tensor | float, here: slice) -> Any:
    return weights[here, None] if isinstance(weights, torch.Tensor) else weights


def _other_distribution(soft: SoftTargets, here: slice) -> torch.Tensor:
    """The other model's distribution, fp32 [some labels, vocabulary]."""
    return (soft.hidden[here].to(soft.head.dtype) @ soft.head.T).float().softmax(dim=1)


def _negative_entropy(other: torch.Tensor) -> torch.Tensor:
    return torch.special.xlogy(other, other).sum(dim=1, keepdim=True)


def _add_product(total: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> None:
    """total += left @ right. A GPU accumulates in the precision of `total`, within the matrix product."""
    if total.is_cuda and left.dtype != total.dtype:
        torch.addmm(total, left, right, out_dtype=total.dtype, out=total)
    else:
        total += left @ right
