"""Cross-entropy on the letter that is spoken in every frame."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import cross_entropy, linear

from caspi.model.batch import Batch
from caspi.model.forward import Model, label_hidden, output_weight
from caspi.model.letters import FRAMES_PER_POSITION, IGNORED
from caspi.training.objectives.base import Objective


class _FrameLoss(nn.Module):
    """Holds the classifier's weight itself, as FusedLoss does: sharded weights are gathered for the module that owns
    them."""

    def __init__(self, weight: nn.Parameter) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, hidden: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """hidden [positions, width], labels int64 [positions * FRAMES_PER_POSITION]; a scalar in fp32."""
        logits = linear(hidden, self.weight.to(hidden.dtype)).float().view(len(hidden) * FRAMES_PER_POSITION, -1)
        return cross_entropy(logits, labels, reduction="sum", ignore_index=IGNORED)


class LetterCrossEntropy(Objective):
    """For an aligner by letters."""

    def __init__(self, model: Model, compute_dtype: torch.dtype | None = None) -> None:
        super().__init__(model, compute_dtype)
        self.head = _FrameLoss(output_weight(model))  # type: ignore[assignment]

    def loss(self, batch: Batch) -> torch.Tensor:
        loss: torch.Tensor = self.head(label_hidden(self.model, batch), batch.labels)
        return loss
