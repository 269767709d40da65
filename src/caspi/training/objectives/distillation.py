"""Cross-entropy plus the divergence from a teacher."""

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
    """Cross-entropy on the target, plus the divergence from the teacher's distribution there (Hinton et al. 2015,
    arXiv:1503.02531, at temperature 1). The teacher gets the same audio without feature masks.

    teacher: from `load_frozen`; weight: 0 to 1, of its distribution; the transcript gets the rest.
    """

    def __init__(self, model: Model, compute_dtype: torch.dtype | None, teacher: Model, weight: float) -> None:
        super().__init__(model, compute_dtype)
        self._teacher, self._weight = (teacher,), weight  # a tuple, so that it is not trained, sharded or saved

    def loss(self, batch: Batch) -> torch.Tensor:
        [teacher] = self._teacher
        with torch.no_grad():
            teacher_hidden = label_hidden(teacher, replace(batch, masks=None))
        soft = SoftTargets(teacher_hidden, teacher.lm_head.weight, self._weight)
        loss: torch.Tensor = self.head(label_hidden(self.model, batch), batch.labels, 1 - self._weight, soft)
        if self._weight < 1:
            cross_entropy = (loss.detach() - self.head.soft_part) / (1 - self._weight)
            self.add_metric("cross_entropy", cross_entropy, len(batch.labels))
        if self._weight > 0:
            self.add_metric("kl", self.head.soft_part / self._weight, len(batch.labels))
        return loss


def load_frozen(start: ModelConfig, device: torch.device, dtype: torch.dtype | None, *, compiled: bool) -> Model:
    """A model that is only evaluated, never trained, in the compute dtype."""
    model = cast(load(start, device).model, dtype or torch.float32).requires_grad_(False).eval()
    if compiled:
        compile_blocks(model)
    return model
