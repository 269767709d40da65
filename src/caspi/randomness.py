"""The only way to derive a random generator, so that a resumed run draws the same numbers (`make lint` forbids others;
torch is seeded from these, and synthetic sentences have a stream of their own in corpus/sources/synthetic)."""

from __future__ import annotations

import numpy as np


def generator(seed: int, epoch: int, row: int, purpose: str = "") -> np.random.Generator:
    """The generator of one utterance in one epoch, independent of caller and order; each purpose has its own."""
    return seeded(seed, epoch, row, *purpose.encode())


def seeded(*key: int) -> np.random.Generator:
    """The generator of a key, such as a seed and an epoch. No number of the key may be negative."""
    return np.random.default_rng(key)
