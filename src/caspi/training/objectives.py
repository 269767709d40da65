"""What a stage minimises. An objective is a module around the model: `forward(batch)` gives a summed loss.

Sums, not means: the trainer divides by the target tokens of the whole effective batch, on every rank alike.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TypeAlias

import torch
from torch import nn
from transformers import Qwen3ASRForConditionalGeneration

from caspi.model.compiling import compile_blocks
from caspi.model.config import ModelConfig
from caspi.model.features import log_mel
from caspi.model.loading import cast, load
from caspi.model.packed import decode_hidden, encode_features
from caspi.training.collation import Batch, Sequences
from caspi.training.head import LabelHead, SoftTargets

Model: TypeAlias = Qwen3ASRForConditionalGeneration


def forward_audio(model: Model, batch: Batch, *, project: bool = True) -> torch.Tensor:
    """Audio embeddings [audio tokens, width], feature masks applied."""
    features = log_mel(batch.audio.samples, batch.audio.frames)
    if batch.masks is not None:
        features = batch.masks.apply(features)
    return encode_features(model, features, batch.audio, project=project)


def sequence_hidden(model: Model, audio: torch.Tensor, sequences: Sequences) -> torch.Tensor:
    """Hidden states [labels, width] at the positions that predict a label, and nowhere else; audio [all audio tokens
    of the sequences, width]."""
    hidden = decode_hidden(
        model,
        audio,
        sequences.input_ids,
        sequences.audio_positions,
        sequences.position_ids,
        sequences.bounds,
        sequences.longest,
    )
    return hidden[sequences.label_positions]


def label_hidden(model: Model, batch: Batch) -> torch.Tensor:
    """Hidden states [labels, width] at the positions that predict a target token."""
    return sequence_hidden(model, forward_audio(model, batch), batch.sequences)


def label_logits(model: Model, batch: Batch) -> torch.Tensor:
    """Logits [labels, vocabulary] there."""
    logits: torch.Tensor = model.lm_head(label_hidden(model, batch))
    return logits


class Objective(nn.Module):
    """What all objectives share. compute_dtype: of autocast; None computes as the weights are."""

    def __init__(self, model: Model, compute_dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.model, self.head, self._compute_dtype = model, LabelHead(model.lm_head.weight), compute_dtype
        # What accelerate shards by itself, by transformers' convention.
        stacks = (model.model.audio_tower.layers, model.model.language_model.layers)
        self._no_split_modules = [type(layers[0]).__name__ for layers in stacks]
        self._noted: dict[str, tuple[torch.Tensor | float, float]] = {}

    def forward(self, batch: Batch) -> torch.Tensor:
        """Summed over the labels of the batch, fp32 scalar."""
        dtype = self._compute_dtype
        with torch.autocast(batch.labels.device.type, dtype=dtype, enabled=dtype is not None):
            return self.loss(batch)

    def loss(self, batch: Batch) -> torch.Tensor:
        """The same, in the precision around it."""
        raise NotImplementedError

    def note(self, name: str, total: torch.Tensor | float, count: float) -> None:
        """Adds to a mean that is logged beside the loss: a part of it, or what it was made from."""
        before, times = self._noted.get(name, (0.0, 0.0))
        self._noted[name] = (before + (total.detach() if isinstance(total, torch.Tensor) else total), times + count)

    def take_notes(self) -> dict[str, float]:
        """The means since they were last asked for, of this process."""
        found = {name: float(total) / max(count, 1e-9) for name, (total, count) in self._noted.items()}
        self._noted = {}
        return found


class CrossEntropy(Objective):
    """Next-token cross-entropy on the target."""

    def loss(self, batch: Batch) -> torch.Tensor:
        found: torch.Tensor = self.head(label_hidden(self.model, batch), batch.labels)
        return found


class Distillation(Objective):
    """Cross-entropy on the target, and the divergence from what a teacher says there (Hinton et al. 2015,
    arXiv:1503.02531, at temperature 1). The teacher hears the same sound, nothing of it masked.

    teacher: of `frozen`; weight: 0 to 1, what its distribution counts for, the rest is the transcript's.
    """

    def __init__(self, model: Model, compute_dtype: torch.dtype | None, teacher: Model, weight: float) -> None:
        super().__init__(model, compute_dtype)
        self._teacher, self._weight = (teacher,), weight  # a tuple: not a part of what is trained, sharded, saved

    def loss(self, batch: Batch) -> torch.Tensor:
        [teacher] = self._teacher
        with torch.no_grad():
            theirs = label_hidden(teacher, replace(batch, masks=None))
        soft = SoftTargets(theirs, teacher.lm_head.weight, self._weight)
        found: torch.Tensor = self.head(label_hidden(self.model, batch), batch.labels, 1 - self._weight, soft)
        if self._weight < 1:
            own = (found.detach() - self.head.soft_part) / (1 - self._weight)
            self.note("cross_entropy", own, len(batch.labels))
        if self._weight > 0:
            self.note("kl", self.head.soft_part / self._weight, len(batch.labels))
        return found


def frozen(start: ModelConfig, device: torch.device, dtype: torch.dtype | None, *, compiled: bool) -> Model:
    """A model that is asked and never trained, in the compute dtype."""
    model = cast(load(start, device).model, dtype or torch.float32).requires_grad_(False).eval()
    if compiled:
        compile_blocks(model)
    return model
