"""The epochs of a stage, planned before it begins."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from caspi.errors import UsageError
from caspi.training.config import CurriculumKey, StageConfig, TrainConfig
from caspi.training.data.batch_plan import EpochPlan, plan_epoch, shuffled
from caspi.training.data.dataset import TrainingSet
from caspi.training.data.mixing import Mixer


def plan_stage(
    data: TrainingSet, config: TrainConfig, stage: StageConfig, ranks: int, seed: int
) -> tuple[list[EpochPlan], int]:
    """Plans of the stage's epochs and its number of steps; a fractional last epoch is cut short.

    Raises UsageError if an effective batch has fewer utterances than there are ranks.
    """
    mixer = None
    if stage.mix is not None:
        mixer = Mixer(config.mixes[stage.mix], data.rows, data.seconds, data.sources, seed)
    plans = []
    for epoch in range(math.ceil(stage.epochs)):
        rows = data.rows if mixer is None else mixer.epoch(epoch)
        curriculum = stage.curriculum
        if curriculum is not None and epoch < curriculum.epochs:
            order = shuffled(rows, seed, epoch, _difficulty(data, curriculum.first)[rows], curriculum.bands)
        else:
            order = shuffled(rows, seed, epoch)
        plans.append(
            plan_epoch(
                data.seconds,
                order,
                batch=config.batch,
                budget=config.budget,
                ranks=ranks,
                lengths=data.epoch_lengths(config, stage, seed, epoch),
                sequences=stage.objective.sequences,
            )
        )
    if any(len(plan.rows(step)) < ranks for plan in plans for step in range(len(plan.steps))):
        raise UsageError(
            f"train: an effective batch leaves some of {ranks} processes without an utterance: "
            "raise effective_batch or effective_seconds, or start fewer"
        )
    whole = sum(len(plan.steps) for plan in plans[: math.floor(stage.epochs)])
    rest = stage.epochs - math.floor(stage.epochs)
    return plans, max(1, whole + (round(rest * len(plans[-1].steps)) if rest else 0))


def _difficulty(data: TrainingSet, key: CurriculumKey) -> np.ndarray:
    """The difficulty of every row of the corpus; a curriculum starts with low values."""
    if key == "short":
        return data.seconds
    if key == "clean":
        return -np.nan_to_num(data.corpus.numbers("snr_db"))
    return np.array([len(text) for text in data.texts]) / data.seconds


def audio_hours(data: TrainingSet, plans: Sequence[EpochPlan], steps: int) -> float:
    """Hours of audio in the first `steps` steps of the epochs."""
    rows_of_steps = itertools.islice((plan.rows(step) for plan in plans for step in range(len(plan.steps))), steps)
    return float(sum(data.seconds[rows].sum() for rows in rows_of_steps)) / 3600
