"""The training section of a recipe."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from caspi.audio import Seconds
from caspi.augmentation.config import Augmentation, NoSpeech
from caspi.config import Config
from caspi.model.config import GroupName, GroupTraining, Hotwords
from caspi.training.objective_config import CrossEntropyObjective, ObjectiveConfig


class Share(Config):
    """weight: share of the epoch. epochs: instead, passes over the source in one epoch of the mix.

    max_hours: the source is limited to this many hours. max_epochs: maximum passes over it; the other sources get the
    share that this leaves.
    """

    weight: float | None = Field(None, gt=0)
    epochs: float | None = Field(None, gt=0)
    max_hours: float | None = Field(None, gt=0)
    max_epochs: float | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _weight_or_epochs(self) -> Share:
        if self.weight is not None and self.epochs is not None:
            raise ValueError("weight and epochs are both given: keep one")
        return self


class Mix(Config):
    """sources: by the source name of the utterances; a number is a weight, the default weight is the size of the
    source.

    by: the unit of the weights. temperature: weights are raised to the power 1/temperature; 1 leaves them
    unchanged, a larger value evens them out. size: of one epoch, in hours or utterances; by default the size of all
    sources together.
    """

    sources: dict[str, float | Share] = Field(min_length=1)
    by: Literal["hours", "utterances"] = "hours"
    temperature: float = Field(1.0, gt=0)
    size: float | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _weights_or_epochs(self) -> Mix:
        have_epochs = [share.epochs is not None for share in self.shares().values()]
        if any(have_epochs) and not all(have_epochs):
            raise ValueError("some sources have epochs and some weights: give epochs to all or to none")
        if any(have_epochs) and (self.size is not None or self.temperature != 1.0):
            raise ValueError("size and temperature have no effect when sources have epochs: remove them")
        have_weights = [share.weight is not None for share in self.shares().values()]
        if any(have_weights) and not all(have_weights):
            raise ValueError("some sources have weights and others do not: give weights to all, or to none")
        if any(isinstance(share, float | int) and share <= 0 for share in self.sources.values()):
            raise ValueError("a weight must be above 0: leave the source out instead")
        return self

    def shares(self) -> dict[str, Share]:
        """The share of every source; a plain number becomes a Share with that weight."""
        return {name: Share(weight=s) if isinstance(s, float | int) else s for name, s in self.sources.items()}


@dataclass(frozen=True, slots=True)
class Budget:
    """Limits of one micro-batch: seconds of audio, and tokens of the decoder's sequences, audio included."""

    seconds: Seconds
    tokens: float = float("inf")

    def halved(self) -> Budget:
        return Budget(self.seconds / 2, self.tokens / 2)


@dataclass(frozen=True, slots=True)
class EffectiveBatch:
    """The batch of one optimizer step, over all ranks: a number of utterances, or of seconds of audio."""

    utterances: int | None = None
    seconds: Seconds | None = None


_MAX_WORKERS = 4  # two are enough for tiny on an H200, eight are slower (docs/log/2026-11-30.md)
_EFFECTIVE_BATCH = 64
Decay = Annotated[float, Field(ge=0, lt=1)]


# Keys of version 0.1 that have been renamed. Until the next version, the old names are accepted with a warning.
RENAMED_KEYS = {
    "recompute_every": "activation_checkpointing_every",
    "stop_after": "max_bad_steps",
    "budget_seconds": "max_batch_seconds",
    "budget_tokens": "max_batch_tokens",
    "learn": "groups",
    "tilt": "spectral_slope",
}


def new_key(key: str, old_keys: set[str]) -> str:
    """The new name of a key; an old name is added to `old_keys`."""
    if key in RENAMED_KEYS:
        old_keys.add(key)
    return RENAMED_KEYS.get(key, key)


def with_new_keys(values: Any, old_keys: set[str]) -> Any:
    """The train section of a recipe with the new keys; old ones are added to `old_keys`. Names of mixes do not
    change."""
    if isinstance(values, dict):
        return {
            new_key(key, old_keys): value if key == "mixes" else with_new_keys(value, old_keys)
            for key, value in values.items()
        }
    return [with_new_keys(value, old_keys) for value in values] if isinstance(values, list) else values


class Schedule(Config):
    """Learning-rate schedule of a stage; warmup is given in steps or as a share of the steps, not both."""

    kind: Literal["constant", "linear", "cosine", "warmup-stable-decay"] = "cosine"
    warmup_steps: int | None = Field(None, ge=0)
    warmup_ratio: float | None = Field(None, ge=0, le=1)
    decay_ratio: float = Field(0.2, ge=0, le=1)

    @model_validator(mode="after")
    def _one_warmup(self) -> Schedule:
        if self.warmup_steps is not None and self.warmup_ratio is not None:
            raise ValueError("warmup_steps and warmup_ratio are both given: keep one")
        if self.kind == "warmup-stable-decay" and (self.warmup_ratio or 0.0) + self.decay_ratio > 1:
            raise ValueError("warmup_ratio and decay_ratio add up to more than 1")
        return self

    def warmup(self, steps: int) -> int:
        """Warmup steps of a stage of `steps`."""
        if self.warmup_steps is not None:
            return self.warmup_steps
        return math.ceil((self.warmup_ratio or 0.0) * steps)

    def decay(self, steps: int) -> int:
        """Steps at the end of a stage of `steps` in which the stable rate decays; 0 for the other schedules."""
        return round(self.decay_ratio * steps) if self.kind == "warmup-stable-decay" else 0


OptimizerName = Literal["adamw", "adamw8bit", "muon", "normuon"]
CurriculumKey = Literal["short", "clean", "slow"]


class Curriculum(Config):
    """In the first `epochs` of a stage, easy utterances come first: `short` clips, `clean` ones (signal-to-noise
    ratio), or `slow` speech (characters per second). The epoch is sorted into `bands` of increasing difficulty; within
    a band the order is random."""

    first: CurriculumKey
    epochs: int = Field(1, ge=1)
    bands: int = Field(10, ge=2)


class StageConfig(Config):
    """One stage: the groups to train, their learning rates and the number of epochs. The next stage starts from the
    resulting model.

    mix: the name of a mix, which sets how much of each source the stage uses; an epoch is then an epoch of the mix.
    optimizer: muon and normuon update the matrices inside blocks along their orthogonalised momentum, and adamw the
    rest. adamw8bit keeps adamw's moments in a quarter of the memory. Learning rates have the same meaning for all
    optimizers. momentum: for these matrices; betas: of AdamW.
    objective: the loss of the stage (training/objective_config.py).
    ema: the decay of a moving average of the weights. If set, the stage evaluates and saves this average, and the next
    stage starts from it.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9_-]+$")
    groups: dict[GroupName, GroupTraining] = Field(min_length=1)
    epochs: float = Field(1.0, gt=0, le=1000)
    mix: str | None = None
    schedule: Schedule = Schedule()
    weight_decay: float = Field(0.01, ge=0)
    optimizer: OptimizerName = "adamw"
    betas: tuple[Decay, Decay] = (0.9, 0.98)
    momentum: Decay = 0.95
    max_grad_norm: float = Field(1.0, gt=0)
    ema: float | None = Field(None, gt=0, lt=1)
    augment: Augmentation | None = None
    curriculum: Curriculum | None = None
    objective: ObjectiveConfig = CrossEntropyObjective()


class InTrainingEvaluation(Config):
    """A fixed subset of the validation split is decoded and scored every `every` steps and at the end of a stage."""

    every: int = Field(500, gt=0)
    utterances: int = Field(200, gt=0)
    keep: int = Field(3, ge=1)


def stage_seed(run: int, number: int) -> int:
    """The seed of a run's stage, counted from 0."""
    return run * 1000 + number


TrackerName = Literal["tensorboard", "wandb", "trackio"]


class HubConfig(Config):
    """A repository that checkpoints are uploaded to during training; HF_TOKEN needs write access to it."""

    repository: str = Field(pattern=r"^[\w.-]+/[\w.-]+$")
    private: bool = True


class TrainConfig(Config):
    """A run. effective_batch: utterances per optimizer step, over all GPUs (64); or effective_seconds of audio instead.

    max_batch_seconds, max_batch_tokens: audio and decoder tokens (audio, prompt and text) in one micro-batch of one
    GPU. A micro-batch that runs out of memory is split, and the step is repeated.
    compile: run blocks through torch.compile, which takes about a minute at the start of a stage; `auto`: on a GPU.
    activation_checkpointing_every: n: every n-th block keeps only its input, and is computed again in the backward pass
    (0: none, 1: all). max_bad_steps: the run ends after this many steps in a row with a non-finite loss or gradient.

    augment: for every stage without its own. max_seconds: longer clips of the corpus are skipped.
    mixes: how much of every source an epoch contains, by the name that stages refer to.
    previous_text: the probability that an utterance gets the preceding text of the same recording in the system turn.
    timestamps: the probability that an utterance with known times has them in its transcript (model/timestamps.py).
    hotwords: words in the system turn that may be spoken. no_speech: some utterances are replaced by noise.
    save_every, save_every_minutes: save more checkpoints to resume from, in steps and in minutes. Every evaluation
    also saves one; the best and the last are kept.
    precision: `auto` is bf16 on a GPU and fp32 elsewhere.
    track: trackers that receive the log, besides metrics.jsonl. hub: where checkpoints are uploaded to.
    """

    path: Path
    effective_batch: int | None = Field(None, ge=1)
    effective_seconds: Seconds | None = Field(None, gt=0)
    max_batch_seconds: Seconds = Field(240.0, gt=0)
    max_batch_tokens: int = Field(8192, ge=1)
    max_seconds: Seconds = Field(30.0, gt=0)
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    mixes: dict[str, Mix] = Field(default_factory=dict)
    previous_text: float = Field(0.0, ge=0, le=1)
    timestamps: float = Field(0.0, ge=0, le=1)
    hotwords: Hotwords | None = None
    no_speech: NoSpeech | None = None
    stages: tuple[StageConfig, ...] = Field(min_length=1)
    augment: Augmentation = Augmentation()
    evaluate: InTrainingEvaluation = InTrainingEvaluation()
    log_every: int = Field(10, ge=1)
    save_every: int | None = Field(None, gt=0)
    save_every_minutes: float | None = Field(None, gt=0)
    workers: int | None = Field(None, ge=0)
    shuffle_transcripts: bool = False
    compile: bool | Literal["auto"] = "auto"
    activation_checkpointing_every: int = Field(0, ge=0)
    max_bad_steps: int = Field(5, ge=1)
    track: tuple[TrackerName, ...] = ("tensorboard",)
    hub: HubConfig | None = None

    def loader_workers(self, *, on_gpu: bool, ranks: int) -> int:
        """Data loader processes of each rank: `workers` if set; otherwise on a GPU as many as the machine has cores
        for, and on a CPU none, because they would share it with training."""
        if self.workers is not None:
            return self.workers
        return max(1, min(_MAX_WORKERS, (os.cpu_count() or 1) // ranks - 1)) if on_gpu else 0

    @property
    def batch(self) -> EffectiveBatch:
        """The batch of one optimizer step."""
        if self.effective_seconds is not None:
            return EffectiveBatch(seconds=self.effective_seconds)
        return EffectiveBatch(utterances=self.effective_batch or _EFFECTIVE_BATCH)

    @property
    def budget(self) -> Budget:
        """The limits of one micro-batch."""
        return Budget(self.max_batch_seconds, self.max_batch_tokens)

    @model_validator(mode="after")
    def _one_effective_batch(self) -> TrainConfig:
        if self.effective_batch is not None and self.effective_seconds is not None:
            raise ValueError("effective_batch (utterances) and effective_seconds are both given: keep one")
        return self

    @model_validator(mode="after")
    def _distinct_names(self) -> TrainConfig:
        names = [stage.name for stage in self.stages]
        if len(set(names)) < len(names):
            raise ValueError(f"stages: two have the same name ({', '.join(names)})")
        for stage in self.stages:
            if stage.mix is not None and stage.mix not in self.mixes:
                known = ", ".join(self.mixes) or "there are none"
                raise ValueError(f"stage {stage.name}: mix {stage.mix} is not one of train.mixes ({known})")
        return self
