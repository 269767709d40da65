"""The training objective of a stage, as a recipe configures it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from caspi.config import Config


class CrossEntropyObjective(Config):
    """Cross-entropy on the tokens of the transcript."""

    kind: Literal["cross_entropy"] = "cross_entropy"

    @property
    def sequences(self) -> int:
        """Sequences of the decoder for every clip."""
        return 1


class DistillationObjective(Config):
    """Cross-entropy on the transcript plus distillation from a teacher. teacher: a model with the same vocabulary,
    larger or better trained; weight: of the teacher's distribution; the transcript gets the rest."""

    kind: Literal["distillation"] = "distillation"
    teacher: str
    revision: str | None = None
    weight: float = Field(0.5, gt=0, le=1)

    @property
    def sequences(self) -> int:
        """Sequences of the decoder for every clip."""
        return 1


class SequenceObjective(Config):
    """Training on hypotheses sampled from the model, rewarded by their similarity to the transcript. hypotheses: per
    utterance. kl: weight of the divergence from the stage's initial model; cross_entropy: weight of the cross-entropy
    on the transcript."""

    kind: Literal["sequence"] = "sequence"
    hypotheses: int = Field(4, ge=2)
    kl: float = Field(0.05, ge=0)
    cross_entropy: float = Field(0.1, ge=0)

    @property
    def sequences(self) -> int:
        """Sequences of the decoder for every clip, the transcript among them."""
        return self.hypotheses + 1


ObjectiveConfig = Annotated[
    CrossEntropyObjective | DistillationObjective | SequenceObjective, Field(discriminator="kind")
]
