"""The head's cross-entropy in pieces, compared with torch's over all logits."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from caspi.training.objectives import fused_loss
from caspi.training.objectives.fused_loss import FusedLoss

VOCABULARY, WIDTH, LABELS = 97, 16, 23


def problem(scale: float = 1.0) -> tuple[torch.Tensor, nn.Parameter, torch.Tensor]:
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(VOCABULARY, WIDTH) * scale)
    return torch.randn(LABELS, WIDTH), weight, torch.randint(0, VOCABULARY, (LABELS,))


def gradients(
    loss_of: object, hidden: torch.Tensor, weight: nn.Parameter, labels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    hidden = hidden.clone().requires_grad_()
    weight.grad = None
    loss = loss_of(hidden, weight, labels)  # type: ignore[operator]
    (loss / 7).backward()
    assert hidden.grad is not None
    assert weight.grad is not None
    return loss.detach(), hidden.grad, weight.grad


def fused(hidden: torch.Tensor, weight: nn.Parameter, labels: torch.Tensor) -> torch.Tensor:
    return FusedLoss(weight)(hidden, labels)  # type: ignore[no-any-return]


def torchs(hidden: torch.Tensor, weight: nn.Parameter, labels: torch.Tensor) -> torch.Tensor:
    return cross_entropy((hidden @ weight.T).float(), labels, reduction="sum")


@pytest.mark.parametrize("at_once", [1, 5 * VOCABULARY, 10**6])
@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_loss_and_gradients_equal_torchs(monkeypatch: pytest.MonkeyPatch, at_once: int, scale: float) -> None:
    monkeypatch.setattr(fused_loss, "AT_ONCE", at_once)
    for found, expected in zip(gradients(fused, *problem(scale)), gradients(torchs, *problem(scale)), strict=True):
        assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("scale", [0.1, 3.0])
def test_bf16_is_as_exact_as_torchs(scale: float) -> None:
    """Also if the model is confident, so that a gradient is 1 minus a probability near one."""
    hidden, weight, _ = problem(scale)
    labels = (hidden @ weight.T).argmax(dim=1)
    exact = gradients(torchs, hidden.double(), nn.Parameter(weight.double()), labels)
    with torch.autocast("cpu", torch.bfloat16):
        found, reference = gradients(fused, hidden, weight, labels), gradients(torchs, hidden, weight, labels)
    for one, other, truth in zip(found, reference, exact, strict=True):
        assert one.dtype == torch.float32
        assert (one - truth).norm() < 1.1 * (other - truth).norm() + 1e-6 * truth.norm()


def test_only_trained_tensors_get_a_gradient() -> None:
    hidden, weight, labels = problem()
    with torch.no_grad():
        assert torch.allclose(fused(hidden, weight, labels), torchs(hidden, weight, labels))
    weight.requires_grad_(False)
    hidden.requires_grad_()
    fused(hidden, weight, labels).backward()
    assert weight.grad is None
    assert hidden.grad is not None


def test_all_logits_are_never_in_memory_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused_loss, "AT_ONCE", 4 * VOCABULARY)
    made = []
    real = torch.Tensor.exp_
    monkeypatch.setattr(torch.Tensor, "exp_", lambda self: made.append(len(self)) or real(self))
    gradients(fused, *problem())
    assert sum(made) == LABELS
    assert max(made) == 4
