"""Compiled blocks compute the same as plain ones, with or without activation checkpointing; decoding avoids them."""

from __future__ import annotations

import functools

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from caspi.model.activation_checkpointing import checkpoint_activations
from caspi.model.batch import collate
from caspi.model.compiling import compile_blocks, uncompiled
from caspi.model.loading import LoadedModel
from caspi.training.objectives.cross_entropy import CrossEntropy
from tests.support import gradients, items


@pytest.fixture
def compiled(fresh_tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> CompileCounterWithBackend:
    """torch.compile without generating kernels (tests/gpu covers those); counts the graphs."""
    counter = CompileCounterWithBackend("eager")
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=counter))
    fresh_tiny.model.train()
    return counter


@pytest.mark.parametrize("every", [0, 1])
def test_the_gradient_equals_that_of_plain_blocks(
    fresh_tiny: LoadedModel, compiled: CompileCounterWithBackend, every: int
) -> None:
    clips = [items(1.0, 2.5, 4.2), items(0.7, 9.5)]
    _, expected = gradients(fresh_tiny, clips)
    checkpoint_activations(fresh_tiny.model, every)
    compile_blocks(fresh_tiny.model)
    _, found = gradients(fresh_tiny, clips)
    assert all(torch.allclose(found[name], value, rtol=1e-4, atol=1e-6) for name, value in expected.items())
    assert compiled.frame_count > 0


def test_nothing_is_compiled_within_uncompiled(fresh_tiny: LoadedModel, compiled: CompileCounterWithBackend) -> None:
    compile_blocks(fresh_tiny.model)
    with torch.no_grad(), uncompiled():
        CrossEntropy(fresh_tiny.model)(collate(items(1.0), fresh_tiny.prompt))
    assert compiled.frame_count == 0
