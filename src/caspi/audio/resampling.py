"""Resamples to the rate of the model."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import soxr

from caspi.audio.base import SAMPLE_RATE


def resample(samples: np.ndarray, rate: int) -> np.ndarray:
    """float32 [n] at `rate` Hz to float32 at 16 kHz."""
    return samples if rate == SAMPLE_RATE else soxr.resample(samples, rate, SAMPLE_RATE)


def resample_blocks(blocks: Iterator[np.ndarray], rate: int) -> Iterator[np.ndarray]:
    """Consecutive blocks [n] of one recording, as `resample`; the memory of a block may be reused for the next one."""
    if rate == SAMPLE_RATE:
        yield from (block.copy() for block in blocks)
        return
    resampler = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32")
    for block in blocks:
        yield resampler.resample_chunk(block, last=False)
    yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)
