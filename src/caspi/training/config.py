"""What a recipe says of training."""

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
    """weight: of the epoch. epochs: instead, passes over the source in one epoch of the mix.

    max_hours: only so much of the source is ever used. max_epochs: passes at most; what is cut goes to the others.
    """

    weight: float | None = Field(None, gt=0)
    epochs: float | None = Field(None, gt=0)
    max_hours: float | None = Field(None, gt=0)
    max_epochs: float | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _one_way(self) -> Share:
        if self.weight is not None and self.epochs is not None:
            raise ValueError("weight and epochs are both given: keep one")
        return self


class Mix(Config):
    """sources: by the name utterances carry; a number is a weight, and a source without one weighs its size.

    by: what weights are shares of. temperature: weights to the power of 1/temperature, 1 leaves them, larger evens
    them out. size: of one epoch, in hours or utterances; by default all that the sources hold.
    """

    sources: dict[str, float | Share] = Field(min_length=1)
    by: Literal["hours", "utterances"] = "hours"
    temperature: float = Field(1.0, gt=0)
    size: float | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _weights_or_epochs(self) -> Mix:
        given = [share.epochs is not None for share in self.shares().values()]
        if any(given) and not all(given):
            raise ValueError("some sources have epochs and some weights: give epochs to all or to none")
        if any(given) and (self.size is not None or self.temperature != 1.0):
            raise ValueError("size and temperature mean nothing where sources have epochs")
        weighted = [share.weight is not None for share in self.shares().values()]
        if any(weighted) and not all(weighted):
            raise ValueError("some sources have weights and some none: give weights to all, or to none")
        if any(isinstance(share, float | int) and share <= 0 for share in self.sources.values()):
            raise ValueError("a weight must be above 0: leave the source out instead")
        return self

    def shares(self) -> dict[str, Share]:
        """Every source's share, bare weights spelled out."""
        return {name: Share(weight=s) if isinstance(s, float | int) else s for name, s in self.sources.items()}


@dataclass(frozen=True, slots=True)
class Budget:
    """What one micro-batch may hold: seconds of audio, and tokens of the decoder's sequences, audio included."""

    seconds: Seconds
    tokens: float = float("inf")

    def halved(self) -> Budget:
        return Budget(self.seconds / 2, self.tokens / 2)


@dataclass(frozen=True, slots=True)
class EffectiveBatch:
    """What one optimizer step learns from, over all ranks: so many utterances, or so many seconds."""

    utterances: int | None = None
    seconds: Seconds | None = None


_MOST_WORKERS = 4  # two are enough for tiny on an H200, eight are slower (docs/log.md, 2026-11-30)
_EFFECTIVE_BATCH = 64
Decay = Annotated[float, Field(ge=0, lt=1)]


# Keys of version 0.1 that have another name since; the old ones are read, with a warning, until the next version.
RENAMED_KEYS = {
    "recompute_every": "activation_checkpointing_every",
    "stop_after": "max_bad_steps",
    "budget_seconds": "max_batch_seconds",
    "budget_tokens": "max_batch_tokens",
    "learn": "groups",
    "tilt": "spectral_slope",
}


def with_new_keys(values: Any) -> Any:
    """The training part of a recipe as version 0.1 wrote it, under today's keys."""
    if isinstance(values, dict):
        return {RENAMED_KEYS.get(key, key): with_new_keys(value) for key, value in values.items()}
    return [with_new_keys(value) for value in values] if isinstance(values, list) else values


class Schedule(Config):
    """Learning-rate schedule of a stage; warmup in steps or as a share of them, not both."""

    kind: Literal["constant", "linear", "cosine", "warmup-stable-decay"] = "cosine"
    warmup_steps: int | None = Field(None, ge=0)
    warmup_ratio: float | None = Field(None, ge=0, le=1)
    decay_ratio: float = Field(0.2, ge=0, le=1)

    @model_validator(mode="after")
    def _one_warmup(self) -> Schedule:
        if self.warmup_steps is not None and self.warmup_ratio is not None:
            raise ValueError("warmup_steps and warmup_ratio are both given: keep one")
        if self.kind == "warmup-stable-decay" and (self.warmup_ratio or 0.0) + self.decay_ratio > 1:
            raise ValueError("warmup_ratio and decay_ratio are more than the stage together")
        return self

    def warmup(self, steps: int) -> int:
        """Warmup steps of a stage of `steps`."""
        if self.warmup_steps is not None:
            return self.warmup_steps
        return math.ceil((self.warmup_ratio or 0.0) * steps)

    def decay(self, steps: int) -> int:
        """Steps at the end of a stage of `steps` in which a stable rate decays; 0 of schedules without such an end."""
        return round(self.decay_ratio * steps) if self.kind == "warmup-stable-decay" else 0


OptimizerName = Literal["adamw", "adamw8bit", "muon", "normuon"]
CurriculumKey = Literal["short", "clean", "slow"]


class Curriculum(Config):
    """For the first `epochs` of a stage, what is easy comes first: `short` clips, `clean` ones (signal-to-noise
    ratio), or `slow` speech (characters a second). In `bands` of rising difficulty; within one the order is random."""

    first: CurriculumKey
    epochs: int = Field(1, ge=1)
    bands: int = Field(10, ge=2)


class StageConfig(Config):
    """One stage: which groups learn at which rates, for how many epochs; the model is carried to the next.

    mix: by name, which sources it sees and how much of each; an epoch is then an epoch of the mix.
    optimizer: muon and normuon step the matrices inside of blocks by their momentum, made orthogonal; adamw the rest.
    adamw8bit keeps adamw's moments in a quarter of the memory. Learning rates mean the same for all. momentum: of those
    matrices; betas: of AdamW.
    objective: what the stage minimises (training/objective_config.py).
    ema: the decay of a moving average of the weights, which is then what the stage measures, saves and leaves.
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
    """A fixed subset of the validation split, decoded and scored every `every` steps and at the end of a stage."""

    every: int = Field(500, gt=0)
    utterances: int = Field(200, gt=0)
    keep: int = Field(3, ge=1)


def stage_seed(run: int, number: int) -> int:
    """The seed of a run's stage, counted from 0."""
    return run * 1000 + number


TrackerName = Literal["tensorboard", "wandb", "trackio"]


class HubConfig(Config):
    """A repository that checkpoints are uploaded to while training goes on; HF_TOKEN must be able to write there."""

    repository: str = Field(pattern=r"^[\w.-]+/[\w.-]+$")
    private: bool = True


class TrainConfig(Config):
    """A run. effective_batch: utterances a step learns from, over all GPUs (64); or effective_seconds of audio instead.

    max_batch_seconds, max_batch_tokens: audio and decoder tokens (audio, prompt and text) in one micro-batch of one
    GPU. Where memory holds less, it is split and the step repeated.
    compile: blocks go through torch.compile, a minute or so at the start of a stage; `auto`: on a GPU.
    activation_checkpointing_every: n: every n-th block keeps its input only, and is computed again in the backward pass
    (0: none, 1: all). max_bad_steps: this many steps in a row with a loss or gradient that is not finite end the run.

    augment: of every stage that names none of its own. max_seconds: longer clips of the corpus are left out.
    mixes: how much of every source an epoch holds, by names that stages use.
    previous_text: how often an utterance is given the text before it, of the same recording, in the system turn.
    timestamps: how often an utterance whose times are known has them in its transcript (model/timestamps.py).
    hotwords: words to expect stand there too. no_speech: noise among the utterances.
    save_every, save_every_minutes: further checkpoints to resume from, in steps and in minutes; an evaluation saves
    one too; the best and the last are kept.
    precision: `auto` is bf16 on a GPU and fp32 elsewhere.
    track: trackers that the log goes to, besides metrics.jsonl. hub: where checkpoints are uploaded to.
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
        """Processes that read and augment ahead, of each rank: as asked, else as many as the machine has cores for
        beside a GPU; none beside a CPU, which they would share with training."""
        if self.workers is not None:
            return self.workers
        return max(1, min(_MOST_WORKERS, (os.cpu_count() or 1) // ranks - 1)) if on_gpu else 0

    @property
    def batch(self) -> EffectiveBatch:
        """What one optimizer step learns from."""
        if self.effective_seconds is not None:
            return EffectiveBatch(seconds=self.effective_seconds)
        return EffectiveBatch(utterances=self.effective_batch or _EFFECTIVE_BATCH)

    @property
    def budget(self) -> Budget:
        """What one micro-batch may hold."""
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
                known = ", ".join(self.mixes) or "none are named"
                raise ValueError(f"stage {stage.name}: mix {stage.mix} is not one of train.mixes ({known})")
        return self
