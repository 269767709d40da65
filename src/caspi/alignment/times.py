"""Times from the distributions that an aligner gives for its slots, and their repair where they are out of order."""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np
import torch

from caspi.audio import Seconds
from caspi.model.alignment import BIN_SECONDS, AlignmentPrompt

_NEAR = 2  # bins on either side of the best: the time is their mean, and their probability is the confidence


@dataclass(frozen=True, slots=True)
class SlotTimes:
    """Of every slot: seconds, the probability that the time is within 0.2 s of it, and the entropy of the distribution
    over bins, in nats; float64 [slots]."""

    seconds: np.ndarray
    confidence: np.ndarray
    entropy: np.ndarray


def slot_times(logits: torch.Tensor, prompt: AlignmentPrompt) -> SlotTimes:
    """logits [slots, bins]. The time is the mean of the bins around the most likely one, which is finer than a bin."""
    probabilities = logits.double().softmax(dim=1).cpu().numpy()
    best = probabilities.argmax(axis=1)
    near = best[:, None] + np.arange(-_NEAR, _NEAR + 1)
    inside = (near >= 0) & (near < probabilities.shape[1])
    clipped = near.clip(0, probabilities.shape[1] - 1)
    weights = np.where(inside, np.take_along_axis(probabilities, clipped, axis=1), 0.0)
    mass = weights.sum(axis=1)
    bins = (weights * near).sum(axis=1) / mass
    entropy = -(probabilities * np.log(np.maximum(probabilities, 1e-300))).sum(axis=1)
    return SlotTimes(prompt.time_of(0) + bins * BIN_SECONDS, mass, entropy)


@dataclass(frozen=True, slots=True)
class OrderedTimes:
    """starts, ends: float64 [words], in order, ends not before starts. repaired: whether a word was moved
    by more than a bin; smaller changes are within the error of the grid."""

    starts: np.ndarray
    ends: np.ndarray
    repaired: np.ndarray


def in_order(seconds: np.ndarray, duration: Seconds) -> OrderedTimes:
    """seconds: [2 * words], start and end of each. The nearest times that do not fall and are inside of the clip."""
    times = nearest_rising(seconds.clip(0.0, duration))
    moved = np.abs(times - seconds) > BIN_SECONDS
    return OrderedTimes(times[::2], times[1::2], moved[::2] | moved[1::2])


def nearest_rising(values: np.ndarray) -> np.ndarray:
    """The series that does not fall with the smallest sum of distances from `values`, in O(n log n): an outlier moves,
    not its neighbours, and two neighbours in the wrong order become equal. By the method of slopes with a heap (for
    example codeforces.com/blog/entry/47821)."""
    heap: list[float] = []  # of negated values: the largest first
    result = np.empty(len(values))
    for index, value in enumerate(values.tolist()):
        heapq.heappush(heap, -value)
        if -heap[0] > value:
            heapq.heapreplace(heap, -value)
        result[index] = -heap[0]
    return np.minimum.accumulate(result[::-1])[::-1]
