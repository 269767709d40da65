"""Builds a stage's objective, with a teacher or reference model if it needs one."""

from __future__ import annotations

import torch

from caspi.model.aligner import LoadedAligner, TrainedModel
from caspi.model.config import ModelConfig
from caspi.model.letters import LetterPrompt
from caspi.training.config import StageConfig
from caspi.training.objective_config import DistillationObjective, SequenceObjective
from caspi.training.objectives.base import Objective
from caspi.training.objectives.cross_entropy import CrossEntropy
from caspi.training.objectives.distillation import Distillation, load_frozen
from caspi.training.objectives.grpo import GroupRelativePolicy
from caspi.training.objectives.letters import LetterCrossEntropy


def stage_objective(
    stage: StageConfig,
    loaded: TrainedModel,
    start: ModelConfig,
    dtype: torch.dtype | None,
    seed: int,
    *,
    compiled: bool,
) -> Objective:
    """start: the model the stage begins with, `loaded`."""
    config, device = stage.objective, next(loaded.model.parameters()).device
    if isinstance(loaded, LoadedAligner):  # its slots are the labels; other objectives were refused before
        return aligner_objective(loaded, dtype)
    if isinstance(config, DistillationObjective):
        teacher_config = ModelConfig(start=config.teacher, revision=config.revision)
        teacher = load_frozen(teacher_config, device, dtype, compiled=compiled)
        return Distillation(loaded.model, dtype, teacher, config.weight)
    if isinstance(config, SequenceObjective):
        reference = load_frozen(start, device, dtype, compiled=compiled) if config.kl else None
        return GroupRelativePolicy(loaded.model, dtype, config, loaded.prompt, reference, seed)
    return CrossEntropy(loaded.model, dtype)


def aligner_objective(loaded: LoadedAligner, dtype: torch.dtype | None) -> Objective:
    """The cross-entropy of slots or of letters."""
    by_letters = isinstance(loaded.prompt, LetterPrompt)
    return LetterCrossEntropy(loaded.model, dtype) if by_letters else CrossEntropy(loaded.model, dtype)
