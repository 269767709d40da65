"""The model section of a recipe. It does not import torch, so that a command that only reads a recipe starts fast."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from caspi.config import Config, rising

MEL_BINS = 128  # the same for every Qwen3-ASR model

GroupName = Literal["audio_front", "audio_layers", "projector", "decoder_layers", "embeddings"]
GROUP_NAMES: tuple[GroupName, ...] = ("audio_front", "audio_layers", "projector", "decoder_layers", "embeddings")


class ModelConfig(Config):
    """start: the source of weights and tokenizer. init: `random` takes only the tokenizer from there, and creates
    random weights in the shape `scale` (default: that of `start`)."""

    start: str = "tiny"
    revision: str | None = None
    init: Literal["pretrained", "random"] = "pretrained"
    scale: str | None = None
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _a_shape_needs_random_weights(self) -> ModelConfig:
        if self.scale is not None and self.init != "random":
            raise ValueError(f"scale: {self.scale} is only for random weights: set init: random, or remove scale")
        return self


class Lora(Config):
    """Low-rank adapters on every linear layer of a group (Hu et al. 2021, arXiv:2106.09685), merged into the weights
    of each checkpoint; dora: with a trained magnitude (Liu et al. 2024, arXiv:2402.09353)."""

    rank: int = Field(16, ge=1)
    alpha: int = Field(32, ge=1)
    dropout: float = Field(0.0, ge=0, lt=1)
    dora: bool = False


class GroupTraining(Config):
    """How one group is trained. lr: learning rate; top: for a stack of layers, train only the last ones (a number or a
    share); lora: train adapters and freeze the group's own weights."""

    lr: float = Field(gt=0)
    top: int | float | None = None
    lora: Lora | None = None

    @model_validator(mode="before")
    @classmethod
    def _rate_alone(cls, value: Any) -> Any:
        return {"lr": value} if isinstance(value, int | float) and not isinstance(value, bool) else value

    @model_validator(mode="after")
    def _sensible_top(self) -> GroupTraining:
        if isinstance(self.top, float) and not 0 < self.top <= 1:
            raise ValueError(f"top: {self.top} is neither a share in (0, 1] nor a whole number of layers")
        if isinstance(self.top, int) and self.top < 1:
            raise ValueError(f"top: {self.top} trains no layer: remove the group instead")
        return self


_Count = Annotated[int, Field(ge=0)]
_Counts = Annotated[tuple[_Count, _Count], AfterValidator(rising)]


class Hotwords(Config):
    """Hotwords in the system turn of an utterance: rare words of its own text, and distractors from other texts.
    probability: that an utterance gets hotwords. absent: probability that none of its own words is among them.
    at_most: a word is rare if at most this many texts contain it."""

    probability: float = Field(0.5, ge=0, le=1)
    words: _Counts = (1, 4)
    distractors: _Counts = (0, 12)
    absent: float = Field(0.2, ge=0, le=1)
    at_most: int = Field(20, ge=1)
