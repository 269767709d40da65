"""Cross-entropy, and the divergence from a teacher."""

from __future__ import annotations

from dataclasses import replace

import torch

from caspi.model.batch import Batch
from caspi.model.compiling import compile_blocks
from caspi.model.config import ModelConfig
from caspi.model.forward import Model, label_hidden
from caspi.model.loading import cast, load
from caspi.training.objectives.base import Objective
from caspi.training.objectives.fused_loss import SoftTargets


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


def load_frozen(start: ModelConfig, device: torch.device, dtype: torch.dtype | None, *, compiled: bool) -> Model:
    """A model that is asked and never trained, in the compute dtype."""
    model = cast(load(start, device).model, dtype or torch.float32).requires_grad_(False).eval()
    if compiled:
        compile_blocks(model)
    return model
