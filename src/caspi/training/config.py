"""The training section of a recipe."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from caspi.augmentation.config import Augmentation, NoSpeech
from caspi.config import Cited, Config, Seconds, Unit
from caspi.model.config import GroupName, GroupTraining, Hotwords
from caspi.training.objective_config import CrossEntropyObjective, ObjectiveConfig


class Share(Config):
    """How much of a mix one source gives."""

    weight: Annotated[float | None, Unit("weight")] = Field(None, gt=0)
    """The part of this source in an epoch, relative to the weights of the other sources. Without it and `epochs`, the
    size of the source."""
    epochs: Annotated[float | None, Unit("passes")] = Field(None, gt=0)
    """Instead of a weight: how many times one epoch of the mix contains the source."""
    max_hours: Annotated[float | None, Unit("h")] = Field(None, gt=0)
    """The mix uses at most this many hours of the source."""
    max_epochs: Annotated[float | None, Unit("passes")] = Field(None, gt=0)
    """One epoch of the mix contains the source at most this many times; the other sources fill the rest."""

    @model_validator(mode="after")
    def _weight_or_epochs(self) -> Share:
        if self.weight is not None and self.epochs is not None:
            raise ValueError("weight and epochs are both given: keep one")
        return self


class Mix(Config):
    """How much of every source an epoch contains."""

    sources: dict[str, Annotated[float, Unit("weight")] | Share] = Field(min_length=1)
    """The sources of the mix, by the source name of the utterances. A number is a weight."""
    by: Literal["hours", "utterances"] = "hours"
    """What weights and sizes count."""
    temperature: Annotated[float, Unit("factor"), Cited("Arivazhagan et al. 2019, arXiv:1907.05019")] = Field(1.0, gt=0)
    """Weights are raised to the power of 1 / `temperature`. 1 does not change them; a larger value makes them more
    equal."""
    size: Annotated[float | None, Unit("h, or utterances")] = Field(None, gt=0)
    """The size of one epoch, in the unit of `by`. Without it, the size of all sources together."""

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
Decay = Annotated[float, Unit("factor"), Field(ge=0, lt=1)]


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
    """How the learning rate changes during a stage. Give the warmup in steps or as a share, not both."""

    kind: Annotated[
        Literal["constant", "linear", "cosine", "warmup-stable-decay"],
        Cited("cosine: Loshchilov and Hutter 2017, arXiv:1608.03983; warmup-stable-decay: Hu et al. 2024,"
              " arXiv:2404.06395"),
    ] = "cosine"  # fmt: skip
    """The learning rate after the warmup: it stays constant, falls to zero in a line or a cosine curve, or stays
    constant and falls only at the end."""
    warmup_steps: Annotated[int | None, Unit("steps")] = Field(None, ge=0)
    """Steps at the start in which the learning rate rises from zero."""
    warmup_ratio: Annotated[float | None, Unit("share")] = Field(None, ge=0, le=1)
    """The same as a share of all steps of the stage."""
    decay_ratio: Annotated[float, Unit("share")] = Field(0.2, ge=0, le=1)
    """Share of the steps, at the end, in which the learning rate of `warmup-stable-decay` falls to zero."""

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
_OPTIMIZERS = Cited(
    "adamw: Loshchilov and Hutter 2019, arXiv:1711.05101; adamw8bit: Dettmers et al. 2022, arXiv:2110.02861;"
    " muon: Jordan et al. 2024, kellerjordan.github.io/posts/muon, and Liu et al. 2025, arXiv:2502.16982;"
    " normuon: Li et al. 2025, arXiv:2510.05491"
)
CurriculumKey = Literal["short", "clean", "slow"]


_CURRICULUM = Cited("Bengio et al. 2009, doi:10.1145/1553374.1553380")


class Curriculum(Config):
    """Easy utterances come first at the beginning of a stage."""

    first: Annotated[CurriculumKey, _CURRICULUM]
    """What is easy: `short` clips, `clean` clips (by their signal-to-noise ratio), or `slow` speech (few characters per
    second)."""
    epochs: Annotated[int, Unit("epochs"), _CURRICULUM] = Field(1, ge=1)
    """Number of epochs, from the start of the stage, that are sorted in this way."""
    bands: Annotated[int, Unit("parts")] = Field(10, ge=2)
    """An epoch is sorted into this many parts, from easy to difficult; inside a part the order is random."""


class StageConfig(Config):
    """One stage of training. The next stage starts from the resulting model."""

    name: str = Field(pattern=r"^[A-Za-z0-9_-]+$")
    """The name of the stage, and of its folder."""
    groups: dict[GroupName, GroupTraining] = Field(min_length=1)
    """The parts of the model to train; all others stay unchanged."""
    epochs: Annotated[float, Unit("epochs")] = Field(1.0, gt=0, le=1000)
    """How many times the stage goes through the training data, or through its mix."""
    mix: str | None = None
    """The name of a mix from `train.mixes`. Without it, an epoch contains every utterance once."""
    schedule: Schedule = Schedule()
    """How the learning rate changes during the stage."""
    weight_decay: Annotated[float, Unit("factor"), Cited("Loshchilov and Hutter 2019, arXiv:1711.05101")] = Field(
        0.01, ge=0
    )
    """How strongly weights are pulled towards zero in every step; norms and biases are not."""
    optimizer: Annotated[OptimizerName, _OPTIMIZERS] = "adamw"
    """How weights are updated. `adamw8bit` needs less memory than `adamw`. `muon` and `normuon` update the matrices
    inside blocks in another way, and everything else as `adamw` does. Learning rates have the same meaning for all."""
    betas: Annotated[tuple[Decay, Decay], Cited("Kingma and Ba 2015, arXiv:1412.6980")] = (0.9, 0.98)
    """How slowly AdamW's averages of the gradient and of its square change."""
    momentum: Annotated[Decay, Cited("Jordan et al. 2024, kellerjordan.github.io/posts/muon")] = 0.95
    """How slowly the average of the gradient changes for the matrices that `muon` or `normuon` updates."""
    max_grad_norm: Annotated[float, Unit("norm"), Cited("Pascanu et al. 2013, arXiv:1211.5063")] = Field(1.0, gt=0)
    """A gradient with a larger norm is scaled down to this norm."""
    ema: Annotated[float | None, Unit("factor"), Cited("Polyak and Juditsky 1992, doi:10.1137/0330046")] = Field(
        None, gt=0, lt=1
    )
    """Keep a moving average of the weights that changes this slowly (such as 0.999). The stage evaluates and saves the
    average, and the next stage starts from it."""
    augment: Augmentation | None = None
    """Effects on the training clips of this stage. Without it, those of `train.augment`."""
    curriculum: Annotated[Curriculum | None, _CURRICULUM] = None
    """Begin with easy utterances."""
    objective: ObjectiveConfig = CrossEntropyObjective()
    """What the stage minimises (the loss)."""


class InTrainingEvaluation(Config):
    """A fixed part of the validation split is transcribed and scored during training, and at the end of a stage."""

    every: Annotated[int, Unit("steps")] = Field(500, gt=0)
    """Steps between two evaluations."""
    utterances: Annotated[int, Unit("utterances")] = Field(200, gt=0)
    """Number of utterances to transcribe."""
    keep: Annotated[int, Unit("checkpoints")] = Field(3, ge=1)
    """Number of best checkpoints to keep. The last one is always kept."""


def stage_seed(run: int, number: int) -> int:
    """The seed of a run's stage, counted from 0."""
    return run * 1000 + number


TrackerName = Literal["tensorboard", "wandb", "trackio"]


class HubConfig(Config):
    """A repository on the Hugging Face Hub that checkpoints are uploaded to during training."""

    repository: Annotated[str, Cited("huggingface.co/docs/hub/repositories")] = Field(pattern=r"^[\w.-]+/[\w.-]+$")
    """The repository, as owner/name. The token in HF_TOKEN must be allowed to write to it."""
    private: bool = True
    """Whether a new repository is private."""


class TrainConfig(Config):
    """A training run."""

    path: Path
    """The folder for checkpoints, logs and reports."""
    effective_batch: Annotated[int | None, Unit("utterances")] = Field(None, ge=1)
    """Utterances in one optimizer step, over all GPUs. Without it and `effective_seconds`, 64."""
    effective_seconds: Seconds | None = Field(None, gt=0)
    """Instead of `effective_batch`: audio in one optimizer step, over all GPUs."""
    max_batch_seconds: Seconds = Field(240.0, gt=0)
    """Most audio in one micro-batch of one GPU. A micro-batch that runs out of memory is split, and the step is
    repeated."""
    max_batch_tokens: Annotated[int, Unit("tokens")] = Field(8192, ge=1)
    """Most decoder tokens (audio, prompt and text) in one micro-batch of one GPU."""
    max_seconds: Seconds = Field(30.0, gt=0)
    """Longer clips of the corpus are not used."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """The number format of the computation. `auto` is `bf16` on a GPU and `fp32` elsewhere."""
    mixes: dict[str, Mix] = Field(default_factory=dict)
    """Mixes of sources, by a name that stages refer to."""
    previous_text: Annotated[float, Unit("probability"), Cited("Radford et al. 2022, arXiv:2212.04356")] = Field(
        0.0, ge=0, le=1
    )
    """Probability that an utterance gets the preceding text of the same recording in the system turn."""
    timestamps: Annotated[float, Unit("probability")] = Field(0.0, ge=0, le=1)
    """Probability that an utterance with known times has them in its transcript."""
    hotwords: Hotwords | None = None
    """Puts words that may be spoken into the system turn."""
    no_speech: NoSpeech | None = None
    """Replaces some utterances by noise, so that the model learns to write nothing when there is no speech."""
    stages: tuple[StageConfig, ...] = Field(min_length=1)
    """The stages of training, in order."""
    augment: Augmentation = Augmentation()
    """Effects on the training clips of all stages that have no `augment` of their own."""
    evaluate: InTrainingEvaluation = InTrainingEvaluation()
    """Evaluations during training. Each one also saves a checkpoint."""
    log_every: Annotated[int, Unit("steps")] = Field(10, ge=1)
    """Steps between two lines of the log."""
    save_every: Annotated[int | None, Unit("steps")] = Field(None, gt=0)
    """Steps between two checkpoints that are saved in addition to those of evaluations."""
    save_every_minutes: Annotated[float | None, Unit("min")] = Field(None, gt=0)
    """Time between two checkpoints that are saved in addition to those of evaluations."""
    workers: Annotated[int | None, Unit("processes")] = Field(None, ge=0)
    """Processes that read data for each GPU. Without it, as many as there are CPU cores for (at most 4) on a GPU, and
    none on a CPU."""
    shuffle_transcripts: bool = False
    """Gives every clip the transcript of another one. Such a run learns nothing useful; it is only for comparison."""
    compile: Annotated[
        bool | Literal["auto"], Cited("docs.pytorch.org/docs/stable/generated/torch.compile.html")
    ] = "auto"  # fmt: skip
    """Whether blocks run through torch.compile, which takes about a minute at the start of a stage. `auto`: on a GPU
    only."""
    activation_checkpointing_every: Annotated[
        int, Unit("blocks"), Cited("Chen et al. 2016, arXiv:1604.06174")
    ] = Field(0, ge=0)  # fmt: skip
    """Every n-th block keeps only its input and is computed again in the backward pass, which needs less memory and
    more time. 0: no block; 1: all blocks."""
    max_bad_steps: Annotated[int, Unit("steps")] = Field(5, ge=1)
    """The run stops after this many steps in a row whose loss or gradient is not a finite number."""
    track: tuple[TrackerName, ...] = ("tensorboard",)
    """Programs that receive the log, in addition to the file metrics.jsonl."""
    hub: HubConfig | None = None
    """Where checkpoints are uploaded to."""

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
