"""Augmentation of features, and the randomness of all augmentation: seeded by (seed, epoch, utterance, purpose), so
that a resumed run repeats it exactly and turning one off leaves the others as they were."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from caspi.model.config import MEL_BINS
from caspi.model.features import frame_count
from caspi.training.augmentation_config import SpecAugment


@dataclass(frozen=True, slots=True)
class FeatureMasks:
    """Where features are blanked: int64 [clips, masks, 2] (start, width) in mel bins and in frames."""

    frequency: torch.Tensor
    time: torch.Tensor

    def apply(self, features: torch.Tensor) -> torch.Tensor:
        """features [clips, MEL_BINS, time], masked places set to 0."""
        _, bins, time = features.shape
        blank = _covered(self.frequency, bins)[:, :, None] | _covered(self.time, time)[:, None, :]
        return features.masked_fill(blank, 0.0)


def _covered(masks: torch.Tensor, size: int) -> torch.Tensor:
    """bool [clips, size]: inside any of the (start, width) masks."""
    place = torch.arange(size, device=masks.device)
    start, width = masks[:, :, :1], masks[:, :, 1:]
    return ((place >= start) & (place < start + width)).any(dim=1)


def generator(seed: int, epoch: int, row: int, purpose: str = "") -> np.random.Generator:
    """The randomness of one utterance in one epoch, whoever asks and in whatever order; apart for every purpose."""
    return np.random.default_rng((seed, epoch, row, *purpose.encode()))


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
