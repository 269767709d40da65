"""Recordings longer than the model was trained on: windows cut in the quietest places, joined with spaces."""

from __future__ import annotations

import numpy as np

from caspi.audio import SAMPLE_RATE, Seconds

MAX_WINDOW: Seconds = 30.0
_SEARCH = 2 / 3  # of a window, its end: a cut is looked for there
_HOP = SAMPLE_RATE // 50  # 20 ms
_AS_QUIET = 2.0  # 3 dB
_SMOOTH = 15  # hops: a pause is quiet for 300 ms, not for one hop


def windows(samples: np.ndarray, longest: Seconds = MAX_WINDOW) -> list[tuple[int, int]]:
    """(first, last) sample of every window, in order, without gap or overlap, none longer than `longest`.

    Each cut falls in the quietest 300 ms of the last two thirds of its window; of pauses that are about as quiet, in
    the first: which of them is quietest is up to the microphone's noise, and one sentence is heard better than two.
    """
    limit = int(longest * SAMPLE_RATE)
    search = int(limit * _SEARCH)
    if len(samples) <= limit:
        return [(0, len(samples))]
    energy = _smoothed_energy(samples)
    cuts = [0]
    while len(samples) - cuts[-1] > limit:
        latest = cuts[-1] + limit
        low, high = (latest - search) // _HOP, latest // _HOP
        within = energy[low:high]
        cuts.append((low + int(np.argmax(within <= _AS_QUIET * within.min()))) * _HOP)
    return list(zip(cuts, [*cuts[1:], len(samples)], strict=True))


def _smoothed_energy(samples: np.ndarray) -> np.ndarray:
    """Mean square a hop, averaged over its neighbourhood."""
    hops = len(samples) // _HOP
    energy = np.square(samples[: hops * _HOP], dtype=np.float32).reshape(hops, _HOP).mean(axis=1)
    return np.convolve(energy, np.full(_SMOOTH, 1 / _SMOOTH), mode="same")
