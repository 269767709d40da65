"""What a recipe says of a stage's objective."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from caspi.config import Config


class CrossEntropyObjective(Config):
    """The transcript, token by token."""

    kind: Literal["cross_entropy"] = "cross_entropy"

    @property
    def sequences(self) -> int:
        """Sequences of the decoder for every clip."""
        return 1


class DistillationObjective(Config):
    """The transcript, and what a teacher says in its place. teacher: a model with the same tokens, larger or better
    trained; weight: what the teacher's distribution counts for, the rest is the transcript's."""

    kind: Literal["distillation"] = "distillation"
    teacher: str
    revision: str | None = None
    weight: float = Field(0.5, gt=0, le=1)

    @property
    def sequences(self) -> int:
        """Sequences of the decoder for every clip."""
        return 1


class SequenceObjective(Config):
    """What the model itself says: so many hypotheses an utterance, by how near to the transcript each is. kl: what the
    divergence from the model the stage began with counts for; cross_entropy: the same of the transcript."""

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
