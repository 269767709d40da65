"""Losses at the labels, the output head included: logits are made for some labels at a time and turn into their own
gradient in place, so that neither all logits nor all their gradients ever exist (the idea of Liger's fused linear
cross-entropy, Hsu et al. 2024, arXiv:2410.10989, section 3.2, on any device)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

AT_ONCE = 2**27  # logits: half a GiB in fp32


@dataclass(frozen=True, slots=True)
class SoftTargets:
    """What another model says at the labels: its hidden states [labels, its width] and its head [vocabulary, its
    width]. weights: fp32 [labels] or one for all, what its distribution counts for."""

    hidden: torch.Tensor
    head: torch.Tensor
    weights: torch.Tensor | float


class FusedLoss(nn.Module):
    """Summed losses of hidden states through an output head. It holds the head's weight itself, which may be spread
    over processes: what gathers weights does so for the module that owns them."""

    def __init__(self, weight: nn.Parameter) -> None:
        super().__init__()
        self.weight = weight
        self.soft_part = torch.zeros(())  # of the last loss, what the divergence came to

    def forward(
        self,
        hidden: torch.Tensor,
        labels: torch.Tensor,
        weights: torch.Tensor | float = 1.0,
        soft: SoftTargets | None = None,
    ) -> torch.Tensor:
        """hidden [labels, width], labels int64 [labels]; a scalar in fp32. Products are computed as autocast says.

        Every label counts by its weight (fp32 [labels] or one for all) times its cross-entropy, and by its soft
        weight times the Kullback-Leibler divergence of what is predicted from what the other model says.
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
                said, trust = (None, 0.0) if soft is None else (_said(soft, here), _column(soft.weights, here))
                if said is not None:
                    apart = (trust * (_negative_entropy(said) - (said * logits).sum(dim=1, keepdim=True))).sum()
                    loss += apart
                    soft_part += apart
                powers = logits.exp_()
                total = powers.sum(dim=1, keepdim=True)
                loss += ((counts + trust) * total.log()).sum()
                if said is not None:
                    soft_part += (trust * total.log()).sum()
                # Gradient times total: the predicted share of the weights, less what each kind of target asks for. It
                # is divided where that is a small matrix.
                if said is not None or isinstance(counts, torch.Tensor) or counts != 1.0:
                    powers.mul_(counts + trust)
                gradient = powers.scatter_add_(1, wanted, -counts * total)
                if said is not None:
                    gradient.addcmul_(said, trust * total, value=-1)
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


def _said(soft: SoftTargets, here: slice) -> torch.Tensor:
    """The other model's distribution, fp32 [some labels, vocabulary]."""
    return (soft.hidden[here].to(soft.head.dtype) @ soft.head.T).float().softmax(dim=1)


def _negative_entropy(said: torch.Tensor) -> torch.Tensor:
    return torch.special.xlogy(said, said).sum(dim=1, keepdim=True)


def _add_product(total: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> None:
    """total += left @ right. A GPU adds up in the precision of `total`, in the product's own pass over it."""
    if total.is_cuda and left.dtype != total.dtype:
        torch.addmm(total, left, right, out_dtype=total.dtype, out=total)
    else:
        total += left @ right
