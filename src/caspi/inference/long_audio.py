"""Recordings longer than the training clips: windows cut at the quietest places, joined with spaces."""

from __future__ import annotations

import numpy as np

from caspi.audio import SAMPLE_RATE, Seconds

MAX_WINDOW: Seconds = 30.0
_SEARCH = 2 / 3  # the cut is searched in this last part of a window
_HOP = SAMPLE_RATE // 50  # 20 ms
_AS_QUIET = 2.0  # 3 dB
_PAUSE = 0.1  # of the window's median energy, -10 dB: anything louder is not a pause
_SHARP = 5
_SMOOTH = 15  # hops: a pause is quiet for 300 ms, not for one hop


def windows(samples: np.ndarray, longest: Seconds = MAX_WINDOW) -> list[tuple[int, int]]:
    """(first, last) sample of every window, in order, without gap or overlap, none longer than `longest`.

    Each cut is in the quietest 300 ms of the last two thirds of its window. Of similarly quiet pauses, it takes the
    first: their order depends on the microphone noise, and one sentence is recognised better than two. Without a pause,
    the cut is in the quietest 100 ms of the last third: between two words if possible, and not earlier than necessary.
    """
    limit = int(longest * SAMPLE_RATE)
    search = int(limit * _SEARCH)
    if len(samples) <= limit:
        return [(0, len(samples))]
    energy, sharp = _smoothed_energy(samples, _SMOOTH), _smoothed_energy(samples, _SHARP)
    cuts = [0]
    while len(samples) - cuts[-1] > limit:
        latest = cuts[-1] + limit
        low, high = (latest - search) // _HOP, latest // _HOP
        within = energy[low:high]
        if within.min() <= _PAUSE * np.median(within):
            cuts.append((low + int(np.argmax(within <= _AS_QUIET * within.min()))) * _HOP)
        else:
            low = (latest - search // 2) // _HOP
            cuts.append((low + int(np.argmin(sharp[low:high]))) * _HOP)
    return list(zip(cuts, [*cuts[1:], len(samples)], strict=True))


def _smoothed_energy(samples: np.ndarray, over: int) -> np.ndarray:
    """Mean square of each hop, averaged over a window of `over` hops around it."""
    hops = len(samples) // _HOP
    framed = samples[: hops * _HOP].reshape(hops, _HOP)
    energy = np.einsum("ij,ij->i", framed, framed) / _HOP  # does not copy the recording
    return np.convolve(energy, np.full(over, 1 / over), mode="same")
