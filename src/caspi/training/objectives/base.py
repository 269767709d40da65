"""Training objectives. An objective is a module around the model; its `forward(batch)` returns a summed loss.

The loss is a sum, not a mean: every rank divides it by the target tokens of the whole effective batch.
"""

from __future__ import annotations

import torch
from torch import nn

from caspi.model.batch import Batch
from caspi.model.forward import Model, output_weight
from caspi.training.objectives.fused_loss import FusedLoss


class Objective(nn.Module):
    """Base class of all objectives. compute_dtype: of autocast; None computes in the dtype of the weights."""

    def __init__(self, model: Model, compute_dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.model, self.head, self._compute_dtype = model, FusedLoss(output_weight(model)), compute_dtype
        # The block classes that accelerate shards one by one; the name is transformers' convention.
        stacks = (model.model.audio_tower.layers, model.model.language_model.layers)
        self._no_split_modules = [type(layers[0]).__name__ for layers in stacks]
        self._metric_sums: dict[str, tuple[torch.Tensor | float, float]] = {}

    def forward(self, batch: Batch) -> torch.Tensor:
        """The loss, summed over the labels of the batch; fp32 scalar."""
        dtype = self._compute_dtype
        with torch.autocast(batch.labels.device.type, dtype=dtype, enabled=dtype is not None):
            return self.loss(batch)

    def loss(self, batch: Batch) -> torch.Tensor:
        """The loss, computed under the caller's autocast."""
        raise NotImplementedError

    def add_metric(self, name: str, total: torch.Tensor | float, count: float) -> None:
        """Adds to a mean that is logged with the loss, such as a part of the loss."""
        old_total, old_count = self._metric_sums.get(name, (0.0, 0.0))
        value = total.detach() if isinstance(total, torch.Tensor) else total
        self._metric_sums[name] = (old_total + value, old_count + count)

    def take_metrics(self) -> dict[str, float]:
        """This process's means since the last call."""
        means = {name: float(total) / max(count, 1e-9) for name, (total, count) in self._metric_sums.items()}
        self._metric_sums = {}
        return means
