"""The model section of a recipe. It does not import torch, so that a command that only reads a recipe starts fast."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from caspi.config import Cited, Config, Seed, Unit, rising

MEL_BINS = 128  # the same for every Qwen3-ASR model

GroupName = Literal["audio_front", "audio_layers", "projector", "decoder_layers", "embeddings", "times"]
GROUP_NAMES: tuple[GroupName, ...] = (
    "audio_front", "audio_layers", "projector", "decoder_layers", "embeddings", "times",
)  # fmt: skip


Task = Literal["transcribe", "align"]


class ModelConfig(Config):
    """The model that training starts from."""

    task: Task = "transcribe"
    """What the model is trained for: `transcribe` writes text, `align` finds the times of words whose text is known."""
    start: str = "tiny"
    """Where weights and tokenizer come from: `tiny`, `tiny-aligner`, a folder, or a name on the Hugging Face Hub."""
    revision: str | None = None
    """The branch, tag or commit of `start` on the Hub. Without it, the newest version."""
    init: Literal["pretrained", "random"] = "pretrained"
    """`pretrained` uses the weights of `start`; `random` uses only its tokenizer and creates random weights."""
    scale: str | None = None
    """The size of a model with random weights, such as `tiny`, `0.6b` or `1.7b`. Without it, `tiny` if `start` is
    `tiny`, and otherwise `1.7b`."""
    seed: Seed = Field(0, ge=0)
    """Start value of the random numbers for random weights."""
    aligner: Literal["letters", "slots"] = "letters"
    """With `task: align`, for a model that is no aligner yet. `letters` finds the letter that is spoken in every 20 ms,
    and the best path through the text: words are in order by construction. `slots` classifies the start and the end of
    each word among `time_bins` times, as the released aligner does."""
    time_bins: Annotated[int | None, Unit("bins of 80 ms")] = Field(None, ge=1)
    """With `aligner: slots`: number of times that it distinguishes, which limits the length of a clip. Without it, 5000
    (400 s), as in the released aligner."""

    @model_validator(mode="after")
    def _a_shape_needs_random_weights(self) -> ModelConfig:
        if self.scale is not None and self.init != "random":
            raise ValueError(f"scale: {self.scale} is only for random weights: set init: random, or remove scale")
        if self.time_bins is not None and (self.task != "align" or self.aligner != "slots"):
            raise ValueError("time_bins is only for task: align with aligner: slots: remove it")
        return self


_LORA = Cited("Hu et al. 2021, arXiv:2106.09685")


class Lora(Config):
    """Low-rank adapters on every linear layer of a group, merged into the weights of each checkpoint."""

    rank: Annotated[int, Unit("dimensions"), _LORA] = Field(16, ge=1)
    """Inner size of an adapter. A higher rank can learn more and needs more memory."""
    alpha: Annotated[int, Unit("factor"), _LORA] = Field(32, ge=1)
    """Strength of the adapters: their output is multiplied by `alpha` / `rank`."""
    dropout: Annotated[float, Unit("probability"), _LORA] = Field(0.0, ge=0, lt=1)
    """Probability that an input value of an adapter is set to zero during training."""
    dora: Annotated[bool, Cited("Liu et al. 2024, arXiv:2402.09353")] = False
    """Whether the length of every weight vector is trained apart from its direction (DoRA)."""


class GroupTraining(Config):
    """How one group is trained. A number alone is its learning rate."""

    lr: Annotated[float, Unit("factor")] = Field(gt=0)
    """The learning rate, at its highest point in the schedule."""
    top: Annotated[int | float | None, Unit("layers, or share of layers")] = None
    """Train only the last layers of `audio_layers` or `decoder_layers`: a whole number of layers (1 or more), or a
    share of them (above 0.0, at most 1.0). Without it, all layers are trained."""
    lora: Annotated[Lora | None, _LORA] = None
    """Train low-rank adapters and leave the weights of the group unchanged until they are merged."""

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
    """Hotwords in the system turn of an utterance: rare words of its own text, and rare words of other texts
    (distractors)."""

    probability: Annotated[float, Unit("probability")] = Field(0.5, ge=0, le=1)
    """Probability that an utterance gets hotwords."""
    words: Annotated[_Counts, Unit("words")] = (1, 4)
    """Smallest and largest number of hotwords from the text of the utterance."""
    distractors: Annotated[_Counts, Unit("words")] = (0, 12)
    """Smallest and largest number of hotwords from other texts."""
    absent: Annotated[float, Unit("probability")] = Field(0.2, ge=0, le=1)
    """Probability that the hotwords contain no word of the utterance's own text."""
    at_most: Annotated[int, Unit("texts")] = Field(20, ge=1)
    """A word is rare if this number of texts or fewer contain it."""
