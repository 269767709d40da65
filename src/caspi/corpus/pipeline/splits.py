"""Train, validation and test splits by a hash of the group, so adding data never moves an utterance."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Annotated

from pydantic import Field, model_validator

from caspi.config import Config, Seed, Unit
from caspi.corpus.utterance import Split


class Splits(Config):
    """How recordings and speakers (groups) are divided into test, validation and training data, separately for every
    source. When the corpus grows, no utterance moves to another split."""

    validation: Annotated[float, Unit("share")] = Field(0.05, ge=0, lt=1)
    """Share of the groups for validation."""
    test: Annotated[float, Unit("share")] = Field(0.05, ge=0, lt=1)
    """Share of the groups for the test. What remains is training data."""
    min_validation_hours: Annotated[float, Unit("h")] = Field(0.0, ge=0)
    """If a source has fewer hours of validation data, more of its groups move from training to validation, up to half
    of its hours."""
    seed: Seed = 0
    """Another value divides the groups in another way."""

    @model_validator(mode="after")
    def _leave_something_to_train_on(self) -> Splits:
        if self.validation + self.test >= 1:
            raise ValueError(f"validation {self.validation} + test {self.test} leave no training data")
        return self


def position(group: str, seed: int) -> float:
    """The position of a recording or speaker between 0 and 1: test first, then validation, then train."""
    digest = hashlib.blake2b(f"{seed}/{group}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64


def split_of(group: str, shares: Splits, boundary: float | None = None) -> Split:
    """The split of a recording or speaker: the same for all its utterances, also after the corpus grows.

    boundary: position where validation ends; by default at its share.
    """
    where = position(group, shares.seed)
    if where < shares.test:
        return "test"
    if where < (shares.test + shares.validation if boundary is None else boundary):
        return "validation"
    return "train"


def boundary_of(hours: Mapping[str, float], shares: Splits, drawn: float = 0.0) -> float:
    """Position where a source's validation ends: at its share, or further if that is below the minimum of hours.

    hours: of every group of the source. drawn: where it ended when the source was smaller; it is not lower than that.
    """
    end = max(shares.test + shares.validation, drawn)
    if drawn:
        return end
    wanted = min(shares.min_validation_hours, sum(hours.values()) / 2)
    held = 0.0
    for where, group in sorted((position(group, shares.seed), group) for group in hours):
        if where < shares.test:
            continue
        if where >= end:
            if held >= wanted:
                break
            end = min(1.0, where + 2**-40)
        held += hours[group]
    return end
