"""Cross-entropy on the transcript."""

from __future__ import annotations

import torch

from caspi.model.batch import Batch
from caspi.model.forward import label_hidden
from caspi.training.objectives.base import Objective


class CrossEntropy(Objective):
    """Next-token cross-entropy on the target."""

    def loss(self, batch: Batch) -> torch.Tensor:
        loss: torch.Tensor = self.head(label_hidden(self.model, batch), batch.labels)
        return loss
