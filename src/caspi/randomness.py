"""The only way to derive a random generator, so that a resumed run draws the same numbers."""

from __future__ import annotations

import numpy as np


def generator(seed: int, epoch: int, row: int, purpose: str = "") -> np.random.Generator:
    """The generator of one utterance in one epoch, independent of caller and order; each purpose has its own."""
    return np.random.default_rng((seed, epoch, row, *purpose.encode()))
