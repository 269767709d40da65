"""Recordings longer than the training clips: windows cut at the quietest places, joined with spaces."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from caspi.audio import SAMPLE_RATE, Seconds
from caspi.model.files import max_clip_seconds

MAX_WINDOW: Seconds = 30.0
_SEARCH_SHARE = 2 / 3  # of a window: the cut is in this last part
_HOP = SAMPLE_RATE // 50  # 20 ms
_SIMILAR_ENERGY = 2.0  # 3 dB: pauses within this ratio are equally quiet
_PAUSE_ENERGY = 0.1  # of the window's median energy, -10 dB: anything louder is not a pause
_SHORT_SMOOTHING = 5  # hops, 100 ms
_LONG_SMOOTHING = 15  # hops, 300 ms: a shorter quiet part is not a pause


def longest_window(config: Mapping[str, Any]) -> Seconds:
    """Of a model, from the content of its config.json: no longer than the clips it was trained on."""
    return min(MAX_WINDOW, max_clip_seconds(config) or MAX_WINDOW)


def windows(samples: np.ndarray, max_seconds: Seconds = MAX_WINDOW) -> list[tuple[int, int]]:
    """(first, last) sample of every window, in order, without gap or overlap, none longer than `max_seconds`.

    Each cut is in the quietest 300 ms of the last two thirds of its window. Of similarly quiet pauses, the
    first is used: their differences are microphone noise, and one sentence is recognised better than two. Without a
    pause, the cut is in the quietest 100 ms of the last third: between two words if possible, and not too early.
    """
    max_samples = int(max_seconds * SAMPLE_RATE)
    search = int(max_samples * _SEARCH_SHARE)
    if len(samples) <= max_samples:
        return [(0, len(samples))]
    energy, short_energy = _smoothed_energy(samples, _LONG_SMOOTHING), _smoothed_energy(samples, _SHORT_SMOOTHING)
    cuts = [0]
    while len(samples) - cuts[-1] > max_samples:
        latest = cuts[-1] + max_samples
        low, high = (latest - search) // _HOP, latest // _HOP
        search_energy = energy[low:high]
        if search_energy.min() <= _PAUSE_ENERGY * np.median(search_energy):
            cuts.append((low + int(np.argmax(search_energy <= _SIMILAR_ENERGY * search_energy.min()))) * _HOP)
        else:
            low = (latest - search // 2) // _HOP
            cuts.append((low + int(np.argmin(short_energy[low:high]))) * _HOP)
    return list(zip(cuts, [*cuts[1:], len(samples)], strict=True))


def _smoothed_energy(samples: np.ndarray, width: int) -> np.ndarray:
    """Mean square of each hop, averaged over the `width` hops around it."""
    hops = len(samples) // _HOP
    frames = samples[: hops * _HOP].reshape(hops, _HOP)
    energy = np.einsum("ij,ij->i", frames, frames) / _HOP  # does not copy the recording
    return np.convolve(energy, np.full(width, 1 / width), mode="same")
