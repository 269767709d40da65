"""Activation checkpointing: blocks keep only their input and compute the rest again in the backward pass (Chen et al.
2016, arXiv:1604.06174): about a third more computation for a fraction of the memory."""

from __future__ import annotations

import functools

from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import Qwen3ASRForConditionalGeneration


def checkpoint_activations(model: Qwen3ASRForConditionalGeneration, every: int) -> None:
    """Checkpoints every `every`-th block of encoder and decoder; 0: none. Undoes the settings of an earlier call."""
    # Restoring the random state is needed only for dropout, which only adapters have.
    uses_dropout = any(isinstance(module, nn.Dropout) and module.p > 0 for module in model.modules())
    for layers in (model.model.audio_tower.layers, model.model.language_model.layers):
        for number, layer in enumerate(layers):
            layer.gradient_checkpointing = bool(every) and number % every == 0
            layer._gradient_checkpointing_func = functools.partial(
                checkpoint, use_reentrant=False, preserve_rng_state=uses_dropout
            )
