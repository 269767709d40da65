"""Masks on log-mel features (SpecAugment)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from caspi.augmentation.config import SpecAugment
from caspi.model.batch import FeatureMasks
from caspi.model.config import MEL_BINS
from caspi.model.features import frame_count


def draw_masks(lengths: Sequence[int], spec: SpecAugment, draws: Sequence[np.random.Generator]) -> FeatureMasks:
    """Masks for clips of `lengths` samples."""
    frequency = np.zeros((len(lengths), spec.frequency_masks, 2), np.int64)
    time = np.zeros((len(lengths), spec.time_masks, 2), np.int64)
    for clip, (length, draw) in enumerate(zip(lengths, draws, strict=True)):
        frames = frame_count(length)
        for mask in frequency[clip]:
            width = draw.integers(0, spec.frequency_width + 1)
            mask[:] = draw.integers(0, MEL_BINS - width + 1), width
        widest = min(spec.time_width, int(frames * spec.time_share / max(1, spec.time_masks)))
        for mask in time[clip]:
            width = draw.integers(0, widest + 1)
            mask[:] = draw.integers(0, frames - width + 1), width
    return FeatureMasks(torch.from_numpy(frequency), torch.from_numpy(time))
