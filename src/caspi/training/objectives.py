"""What a stage minimises. An objective is a module around the model: `forward(batch)` gives a summed loss.

Sums, not means: the trainer divides by the target tokens of the whole effective batch, on every rank alike.
"""

from __future__ import annotations

import torch
from torch import nn
from transformers import Qwen3ASRForConditionalGeneration

from caspi.model.features import log_mel
from caspi.model.packed import decode_hidden, encode_features
from caspi.training.collation import Batch
from caspi.training.head import LabelHead


def forward_audio(model: Qwen3ASRForConditionalGeneration, batch: Batch, *, project: bool = True) -> torch.Tensor:
    """Audio embeddings [audio tokens, width], feature masks applied."""
    features = log_mel(batch.audio.samples, batch.audio.frames)
    if batch.masks is not None:
        features = batch.masks.apply(features)
    return encode_features(model, features, batch.audio, project=project)


def label_hidden(model: Qwen3ASRForConditionalGeneration, batch: Batch) -> torch.Tensor:
    """Hidden states [labels, width] at the positions that predict a target token, and nowhere else."""
    audio = forward_audio(model, batch)
    hidden = decode_hidden(
        model, audio, batch.input_ids, batch.audio_positions, batch.position_ids, batch.bounds, batch.longest
    )
    return hidden[batch.label_positions]


def label_logits(model: Qwen3ASRForConditionalGeneration, batch: Batch) -> torch.Tensor:
    """Logits [labels, vocabulary] there."""
    logits: torch.Tensor = model.lm_head(label_hidden(model, batch))
    return logits


class CrossEntropy(nn.Module):
    """Next-token cross-entropy on the target. compute_dtype: of autocast; None computes as the weights are."""

    def __init__(self, model: Qwen3ASRForConditionalGeneration, compute_dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.model, self.head, self._compute_dtype = model, LabelHead(model.lm_head.weight), compute_dtype
        # What accelerate shards by itself, by transformers' convention.
        stacks = (model.model.audio_tower.layers, model.model.language_model.layers)
        self._no_split_modules = [type(layers[0]).__name__ for layers in stacks]

    def forward(self, batch: Batch) -> torch.Tensor:
        """Summed over the labels of the batch, fp32 scalar."""
        dtype = self._compute_dtype
        with torch.autocast(batch.input_ids.device.type, dtype=dtype, enabled=dtype is not None):
            loss: torch.Tensor = self.head(label_hidden(self.model, batch), batch.labels)
            return loss
