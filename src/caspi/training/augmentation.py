"""Augmentation, training only, seeded by (seed, epoch, utterance) so that a resumed run repeats it exactly.

A new augmentation of the waveform is a field of `Augmentation` and a line in `augment_samples`; one of the
features is the same in `draw_masks`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import soxr
import torch

from caspi.audio import SAMPLE_RATE
from caspi.model.config import MEL_BINS
from caspi.model.features import frame_count
from caspi.training.config import Augmentation


@dataclass(frozen=True, slots=True)
class FeatureMasks:
    """Where features are blanked: int64 [clips, masks, 2] (start, width) in mel bins and in frames."""

    frequency: torch.Tensor
    time: torch.Tensor

    def to(self, device: torch.device) -> FeatureMasks:
        return FeatureMasks(self.frequency.to(device), self.time.to(device))

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


def augment_samples(samples: np.ndarray, how: Augmentation, draw: np.random.Generator) -> np.ndarray:
    """Speed (tempo and pitch together), gain, white noise at an SNR; in that order, those that are on."""
    if how.speed is not None:
        speed = draw.uniform(*how.speed)
        samples = soxr.resample(samples, SAMPLE_RATE * speed, SAMPLE_RATE, quality="LQ")
    if how.gain_db is not None:
        samples = samples * np.float32(10 ** (draw.uniform(*how.gain_db) / 20))
    if how.noise_snr_db is not None:
        power = float(np.mean(samples**2)) / 10 ** (draw.uniform(*how.noise_snr_db) / 10)
        noise = draw.standard_normal(len(samples), dtype=np.float32)
        samples = samples + noise * np.float32(np.sqrt(power))
    return samples.astype(np.float32, copy=False)


def draw_masks(lengths: Sequence[int], how: Augmentation, draws: Sequence[np.random.Generator]) -> FeatureMasks | None:
    """Masks for clips of `lengths` samples, or None where SpecAugment is off."""
    spec = how.spec_augment
    if spec is None:
        return None
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
