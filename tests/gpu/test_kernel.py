"""On a GPU: torch's variable-length kernel against the exact fallback, and a training step of both dtypes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from caspi.augmentation.config import SpecAugment
from caspi.augmentation.spec_augment import draw_masks
from caspi.model.activation_checkpointing import checkpoint_activations
from caspi.model.attention import _kernel, _padded
from caspi.model.batch import Item, collate
from caspi.model.compiling import compile_blocks
from caspi.model.config import GROUP_NAMES, GroupName, GroupTraining, ModelConfig
from caspi.model.forward import label_logits
from caspi.model.groups import select, set_trainable
from caspi.model.loading import load
from caspi.model.tensors import each_tensor, to_device
from caspi.training.data.prefetch import DevicePrefetcher
from caspi.training.objectives.cross_entropy import CrossEntropy

ALL: dict[GroupName, GroupTraining] = {name: GroupTraining(lr=1e-3) for name in GROUP_NAMES if name != "times"}

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


@pytest.mark.parametrize("causal", [True, False])
def test_kernels_gradients_equal_the_fallbacks(causal: bool) -> None:
    lengths, width = [104, 1, 37, 390, 13], 128
    torch.manual_seed(0)
    start = [torch.randn(sum(lengths), heads, width, device="cuda") for heads in (16, 8, 8)]
    bounds = torch.tensor(np.cumsum([0, *lengths]), dtype=torch.int32, device="cuda")
    found = []
    for attend, dtype in ((_kernel, torch.bfloat16), (_padded, torch.float32)):
        given = [tensor.to(dtype).requires_grad_() for tensor in start]
        attend(*given, bounds, max(lengths), width**-0.5, causal).float().square().sum().backward()
        found.append([tensor.grad.float() for tensor in given if tensor.grad is not None])
    assert len(found[0]) == 3
    for fast, exact in zip(*found, strict=True):
        assert (fast - exact).norm() < 0.02 * exact.norm()


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
        found = label_logits(gpu.model, to_device(batch, torch.device("cuda")))
    assert (found.cpu() - expected).abs().max() < 2e-2  # tf32 convolutions


def test_autocast_over_fp32_weights_runs_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training computes so. The norms before attention leave fp32; the padded fallback would do, at twice the time."""
    monkeypatch.setattr("caspi.model.attention._padded", lambda *_: pytest.fail("the padded fallback ran"))
    loaded = load(ModelConfig(start="tiny"), "cuda")
    batch = to_device(collate(items(), loaded.prompt), torch.device("cuda"))
    CrossEntropy(loaded.model, torch.bfloat16)(batch).backward()


def test_bf16_with_frozen_bf16_weights_trains() -> None:
    loaded = load(ModelConfig(start="tiny"), "cuda")
    set_trainable(loaded.model, select(loaded.model, {"projector": GroupTraining(lr=1e-3)}), torch.bfloat16)
    batch = to_device(collate(items(), loaded.prompt), torch.device("cuda"))
    CrossEntropy(loaded.model, torch.bfloat16)(batch).backward()
    gradient = loaded.model.model.multi_modal_projector.linear_1.weight.grad
    assert gradient is not None
    assert gradient.dtype == torch.float32
    assert torch.isfinite(gradient).all()
    assert gradient.abs().max() > 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, None])
def test_nothing_in_a_pass_waits_for_the_device(dtype: torch.dtype | None) -> None:
    """The host launches forward and backward ahead of the device; whatever asked for a number would raise."""
    loaded = load(ModelConfig(start="tiny"), "cuda")
    compile_blocks(loaded.model)
    objective = CrossEntropy(loaded.model, dtype).train()
    draws = [np.random.default_rng(number) for number in range(4)]
    masks = draw_masks([len(item.samples) for item in items()], SpecAugment(), draws)
    pinned = [each_tensor(collate(items(), loaded.prompt, masks), torch.Tensor.pin_memory) for _ in range(3)]
    for number, batch in enumerate(pinned):
        # The first pass compiles and fills caches.
        torch.cuda.set_sync_debug_mode("error" if number else "default")
        try:
            objective(to_device(batch, torch.device("cuda"))).backward()
        finally:
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("every", [0, 1])
def test_compiled_blocks_compute_what_plain_ones_do(every: int) -> None:
    found = []
    for compiled in (False, True):
        loaded = load(ModelConfig(start="tiny"), "cuda")
        set_trainable(loaded.model, select(loaded.model, ALL), torch.bfloat16)
        checkpoint_activations(loaded.model, every)
        if compiled:
            compile_blocks(loaded.model)
        objective = CrossEntropy(loaded.model, torch.bfloat16).train()
        loss = objective(to_device(collate(items(), loaded.prompt), torch.device("cuda")))
        loss.backward()
        gradients = [p.grad.flatten() for p in loaded.model.parameters() if p.grad is not None]
        found.append((float(loss.detach()), torch.cat(gradients)))
    (plain_loss, exact), (compiled_loss, close) = found
    assert compiled_loss == pytest.approx(plain_loss, rel=1e-3)
    assert (close - exact).norm() < 0.03 * exact.norm()  # bf16 roundings fall elsewhere


def test_the_next_micro_batch_arrives_whole() -> None:
    loaded = load(ModelConfig(start="tiny"))
    feed = DevicePrefetcher(torch.device("cuda"))
    batches = [each_tensor(collate(items()[n:], loaded.prompt), torch.Tensor.pin_memory) for n in range(4)]
    for batch, following in zip(batches, [*batches[1:], None], strict=True):
        here = feed.take(batch)
        feed.start_copy(following)
        assert torch.equal(here.audio.samples.cpu(), batch.audio.samples)
        assert torch.equal(here.labels.cpu(), batch.labels)
