"""Masks on log-mel features (SpecAugment)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from caspi.augmentation.config import SpecAugment
from caspi.model.batch import FeatureMasks
from caspi.model.config import MEL_BINS
from caspi.model.features import frame_count


def draw_masks(lengths: Sequence[int], config: SpecAugment, generators: Sequence[np.random.Generator]) -> FeatureMasks:
    """Masks for clips of `lengths` samples."""
    frequency = np.zeros((len(lengths), config.frequency_masks, 2), np.int64)
    time = np.zeros((len(lengths), config.time_masks, 2), np.int64)
    for clip, (length, rng) in enumerate(zip(lengths, generators, strict=True)):
        frames = frame_count(length)
        for mask in frequency[clip]:
            width = rng.integers(0, config.frequency_width + 1)
            mask[:] = rng.integers(0, MEL_BINS - width + 1), width
        max_width = min(config.time_width, int(frames * config.time_share / max(1, config.time_masks)))
        for mask in time[clip]:
            width = rng.integers(0, max_width + 1)
            mask[:] = rng.integers(0, frames - width + 1), width
    return FeatureMasks(torch.from_numpy(frequency), torch.from_numpy(time))
