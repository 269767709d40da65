"""The training objective of a stage, as a recipe configures it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from caspi.config import Cited, Config, Unit


class CrossEntropyObjective(Config):
    """Cross-entropy on the tokens of the transcript."""

    kind: Literal["cross_entropy"] = "cross_entropy"
    """Selects this objective."""

    @property
    def sequences(self) -> int:
        """Sequences of the decoder for every clip."""
        return 1


class DistillationObjective(Config):
    """Cross-entropy on the transcript, plus distillation: the model also learns the output of a teacher."""

    kind: Annotated[Literal["distillation"], Cited("Hinton et al. 2015, arXiv:1503.02531")] = "distillation"
    """Selects this objective."""
    teacher: str
    """A larger or better trained model with the same vocabulary: a folder, or a name on the Hugging Face Hub."""
    revision: str | None = None
    """The branch, tag or commit of `teacher` on the Hub. Without it, the newest version."""
    weight: Annotated[float, Unit("share")] = Field(0.5, gt=0, le=1)
    """Share of the teacher in the loss; the transcript gets the rest."""

    @property
    def sequences(self) -> int:
        """Sequences of the decoder for every clip."""
        return 1


_GRPO = Cited("Shao et al. 2024, arXiv:2402.03300")


class SequenceObjective(Config):
    """Training on hypotheses that the model produces, rewarded by their similarity to the transcript."""

    kind: Annotated[Literal["sequence"], _GRPO] = "sequence"
    """Selects this objective."""
    hypotheses: Annotated[int, Unit("hypotheses"), _GRPO] = Field(4, ge=2)
    """Number of hypotheses for each utterance."""
    kl: Annotated[float, Unit("factor"), _GRPO] = Field(0.05, ge=0)
    """Weight of the difference from the model at the start of the stage (KL divergence). A higher value keeps the
    model closer to it; 0 turns this off."""
    cross_entropy: Annotated[float, Unit("factor")] = Field(0.1, ge=0)
    """Weight of the cross-entropy on the transcript."""

    @property
    def sequences(self) -> int:
        """Sequences of the decoder for every clip, the transcript among them."""
        return self.hypotheses + 1


ObjectiveConfig = Annotated[
    CrossEntropyObjective | DistillationObjective | SequenceObjective, Field(discriminator="kind")
]
