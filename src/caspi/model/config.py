"""What a recipe says of the model. No torch here: a command that only reads a recipe starts in a blink."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from caspi.config import Config, rising

MEL_BINS = 128  # of every Qwen3-ASR

GroupName = Literal["audio_front", "audio_layers", "projector", "decoder_layers", "embeddings"]
GROUP_NAMES: tuple[GroupName, ...] = ("audio_front", "audio_layers", "projector", "decoder_layers", "embeddings")


class ModelConfig(Config):
    """start: where weights and tokenizer come from. init: `random` takes only the tokenizer from there,
    and the shape of `scale` (default: that of `start`)."""

    start: str = "tiny"
    revision: str | None = None
    init: Literal["pretrained", "random"] = "pretrained"
    scale: str | None = None
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _a_shape_needs_random_weights(self) -> ModelConfig:
        if self.scale is not None and self.init != "random":
            raise ValueError(f"scale: {self.scale} is the shape of random weights: set init: random, or leave it out")
        return self


class Lora(Config):
    """Low-rank adapters on every linear layer of a group (Hu et al. 2021, arXiv:2106.09685), merged into the weights
    of each checkpoint; dora: with magnitudes of their own (Liu et al. 2024, arXiv:2402.09353)."""

    rank: int = Field(16, ge=1)
    alpha: int = Field(32, ge=1)
    dropout: float = Field(0.0, ge=0, lt=1)
    dora: bool = False


class GroupTraining(Config):
    """How one group learns: its rate, for a stack of layers how many of the top ones (a count or a share), and
    whether through adapters while its own weights stay."""

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
            raise ValueError(f"top: {self.top} trains no layer; leave the group out instead")
        return self


_Count = Annotated[int, Field(ge=0)]
_Counts = Annotated[tuple[_Count, _Count], AfterValidator(rising)]


class Hotwords(Config):
    """Words to expect, in the system turn of so many of the utterances: rare ones of its own text, and distractors of
    other texts. absent: how often none of its own is among them. at_most: so many texts hold a rare word."""

    probability: float = Field(0.5, ge=0, le=1)
    words: _Counts = (1, 4)
    distractors: _Counts = (0, 12)
    absent: float = Field(0.2, ge=0, le=1)
    at_most: int = Field(20, ge=1)
