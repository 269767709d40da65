"""Cross-entropy at the labels, the output head included: logits are made for some labels at a time and turn into their
own gradient in place, so that neither all logits nor all their gradients ever exist (the idea of Liger's fused linear
cross-entropy, Hsu et al. 2024, arXiv:2410.10989, section 3.2, on any device)."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

_AT_ONCE = 2**27  # logits: half a GiB in fp32


class LabelHead(nn.Module):
    """Summed cross-entropy of hidden states through an output head. It holds the head's weight itself, which may be
    spread over processes: what gathers weights does so for the module that owns them."""

    def __init__(self, weight: nn.Parameter) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, hidden: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """hidden [labels, width], labels int64 [labels]; a scalar in fp32. Products are computed as autocast says."""
        loss: torch.Tensor = _CrossEntropy.apply(hidden, self.weight, labels)  # type: ignore[no-untyped-call]
        return loss


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        kind = hidden.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
        inputs, head = hidden.to(dtype), weight.to(dtype)
        of_hidden = torch.empty_like(inputs) if ctx.needs_input_grad[0] else None
        of_weight = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None
        loss = torch.zeros((), device=hidden.device)
        rows = max(1, _AT_ONCE // len(weight))
        with torch.autocast(kind, enabled=False):
            for start in range(0, len(labels), rows):
                part, wanted = inputs[start : start + rows], labels[start : start + rows, None]
                logits = (part @ head.T).float()
                most = logits.amax(dim=1, keepdim=True)
                loss += (most - logits.gather(1, wanted)).sum()
                powers = logits.sub_(most).exp_()
                total = powers.sum(dim=1, keepdim=True)
                loss += total.log().sum()
                # The gradient is powers / total, less one at the label; divided where that is a small matrix.
                gradient = powers.scatter_add_(1, wanted, -total).to(dtype)
                if of_hidden is not None:
                    of_hidden[start : start + rows] = (gradient @ head) / total
                if of_weight is not None:
                    _add_product(of_weight, gradient.T, (part / total).to(dtype))
        ctx.save_for_backward(of_hidden, of_weight)
        ctx.dtype = hidden.dtype
        return loss

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None, None]:
        of_hidden, of_weight = ctx.saved_tensors
        return (
            None if of_hidden is None else (of_hidden * gradient).to(ctx.dtype),
            None if of_weight is None else of_weight.mul_(gradient),
            None,
        )


def _add_product(total: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> None:
    """total += left @ right. A GPU adds up in the precision of `total`, in the product's own pass over it."""
    if total.is_cuda and left.dtype != total.dtype:
        torch.addmm(total, left, right, out_dtype=total.dtype, out=total)
    else:
        total += left @ right
