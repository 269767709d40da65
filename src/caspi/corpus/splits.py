"""Train, validation and test by group: a hash decides, so adding data never moves an utterance."""

from __future__ import annotations

import hashlib

from pydantic import Field, model_validator

from caspi.config import Config
from caspi.corpus.utterance import Split


class Splits(Config):
    """Shares of the groups of every source; the rest is training data."""

    validation: float = Field(0.05, ge=0, lt=1)
    test: float = Field(0.05, ge=0, lt=1)
    seed: int = 0

    @model_validator(mode="after")
    def _leave_something_to_train_on(self) -> Splits:
        if self.validation + self.test >= 1:
            raise ValueError(f"validation {self.validation} + test {self.test} leave nothing to train on")
        return self


def split_of(group: str, shares: Splits) -> Split:
    """The split of a recording or speaker: the same for all its utterances, today and after growth."""
    digest = hashlib.blake2b(f"{shares.seed}/{group}".encode(), digest_size=8).digest()
    position = int.from_bytes(digest) / 2**64
    if position < shares.test:
        return "test"
    if position < shares.test + shares.validation:
        return "validation"
    return "train"
