"""Compiles blocks of encoder and decoder with torch.compile: norms, rotations and activations become a few kernels."""

from __future__ import annotations

import contextlib
import functools
from typing import Any

import torch
from torch import nn
from transformers import Qwen3ASRForConditionalGeneration


def compile_blocks(model: Qwen3ASRForConditionalGeneration) -> None:
    """All blocks of a stack share the code compiled for the first, for any number of tokens.

    Only the computation of a block is compiled, inside its hooks (FSDP's) and inside activation checkpointing:
    transformers wraps the `forward` of blocks for that, and torch.compile cannot trace this wrapper.
    """
    torch.compiler.reset()  # an earlier stage was compiled with other frozen weights
    for layers in (model.model.audio_tower.layers, model.model.language_model.layers):
        forward = type(layers[0]).forward
        plain = getattr(forward, "__wrapped__", forward)  # before transformers 5.18 the wrapper was around `__call__`
        compiled = torch.compile(plain, dynamic=True)
        for layer in layers:
            run = functools.partial(compiled, layer)
            layer.forward = run if plain is forward else functools.partial(_forward, run, layer)


def _forward(compiled: Any, layer: nn.Module, *args: Any, **options: Any) -> Any:
    """Does what transformers' wrapper does, around the compiled code."""
    run = functools.partial(compiled, **options)
    if layer.gradient_checkpointing and layer.training:
        return layer._gradient_checkpointing_func(run, *args)  # type: ignore[operator]
    return run(*args)


def uncompiled() -> contextlib.AbstractContextManager[None]:
    """Within the block nothing is compiled or runs compiled: decoding has another shape for every token."""
    stance: contextlib.AbstractContextManager[None] = torch.compiler.set_stance("force_eager")
    return stance
