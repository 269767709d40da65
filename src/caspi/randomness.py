"""The one way to derive a random generator, so that a resumed run draws the same numbers."""

from __future__ import annotations

import numpy as np


def generator(seed: int, epoch: int, row: int, purpose: str = "") -> np.random.Generator:
    """The randomness of one utterance in one epoch, whoever asks and in whatever order; apart for every purpose."""
    return np.random.default_rng((seed, epoch, row, *purpose.encode()))
