"""On a GPU: torch's variable-length kernel against the exact fallback, and a training step of both dtypes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from caspi.model.attention import _kernel, _padded
from caspi.model.config import Learn, ModelConfig
from caspi.model.groups import select, set_trainable
from caspi.model.loading import load
from caspi.training.collation import Item, collate
from caspi.training.objectives import CrossEntropy, label_logits

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")]


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("heads", [(16, 8, 128), (16, 16, 64), (4, 2, 32)])
def test_kernel_equals_fallback(causal: bool, heads: tuple[int, int, int]) -> None:
    count, key_count, width = heads
    lengths = [104, 1, 37, 390, 13]
    torch.manual_seed(0)
    q = torch.randn(sum(lengths), count, width, device="cuda", dtype=torch.bfloat16)
    k, v = (torch.randn(sum(lengths), key_count, width, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    bounds = torch.tensor(np.cumsum([0, *lengths]), dtype=torch.int32, device="cuda")
    fast = _kernel(q, k, v, bounds, max(lengths), width**-0.5, causal)
    exact = _padded(q.float(), k.float(), v.float(), bounds, max(lengths), width**-0.5, causal)
    assert (fast.float() - exact).abs().max() < 0.03


def items() -> list[Item]:
    draw = np.random.default_rng(0)
    return [
        Item((draw.standard_normal(int(s * 16_000)) * 0.1).astype(np.float32), "שלום", "Hebrew") for s in (1, 5, 12, 30)
    ]


def test_fp32_on_the_gpu_equals_the_cpu() -> None:
    cpu, gpu = load(ModelConfig(start="tiny")), load(ModelConfig(start="tiny"), "cuda")
    batch = collate(items(), cpu.prompt)
    with torch.no_grad():
        expected = label_logits(cpu.model, batch)
        found = label_logits(gpu.model, batch.to(torch.device("cuda")))
    assert (found.cpu() - expected).abs().max() < 2e-2  # tf32 convolutions


def test_autocast_over_fp32_weights_runs_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training computes so. The norms before attention leave fp32; the padded fallback would do, at twice the time."""
    monkeypatch.setattr("caspi.model.attention._padded", lambda *_: pytest.fail("the padded fallback ran"))
    loaded = load(ModelConfig(start="tiny"), "cuda")
    batch = collate(items(), loaded.prompt).to(torch.device("cuda"))
    CrossEntropy(loaded.model, torch.bfloat16)(batch).backward()


def test_bf16_with_frozen_bf16_weights_trains() -> None:
    loaded = load(ModelConfig(start="tiny"), "cuda")
    set_trainable(loaded.model, select(loaded.model, {"projector": Learn(lr=1e-3)}), torch.bfloat16)
    batch = collate(items(), loaded.prompt).to(torch.device("cuda"))
    CrossEntropy(loaded.model, torch.bfloat16)(batch).backward()
    gradient = loaded.model.model.multi_modal_projector.linear_1.weight.grad
    assert gradient is not None
    assert gradient.dtype == torch.float32
    assert torch.isfinite(gradient).all()
    assert gradient.abs().max() > 0
