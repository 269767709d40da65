"""Prompts as the network takes them: packed one after another, in spans of the cache."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from caspi.inference.engine.network import Cache, PackedPrompts


@dataclass(slots=True)
class PromptJob:
    """A prompt to continue. ids: with one token per audio embedding. audio: [audio tokens, width]. limit, minimum: of
    generated tokens.

    numbers: for each continuation one random number per token; empty: one continuation of the most likely tokens.
    temperature, top_p: of sampling. beams: of a beam search, 1: none; length_penalty: exponent of the length by which
    scores are divided; no_loops: of a search, no token may make the text repeat itself.
    """

    ids: list[int]
    audio: torch.Tensor
    limit: int
    minimum: int = 0
    numbers: tuple[np.ndarray, ...] = ()
    temperature: float = 1.0
    top_p: float = 1.0
    beams: int = 1
    length_penalty: float = 1.0
    no_loops: bool = False

    @property
    def copies(self) -> int:
        """Number of rows that it needs."""
        return max(1, len(self.numbers), self.beams)

    @property
    def span(self) -> int:
        """Positions that one row needs in the cache."""
        return len(self.ids) + self.limit


@dataclass(frozen=True, slots=True)
class Continuation:
    """Generated tokens, with the end of turn if it was reached, and the log-probability of each. score: of a beam."""

    tokens: tuple[int, ...]
    log_probabilities: tuple[float, ...]
    score: float = 0.0


def on_device(values: Sequence[int] | np.ndarray, device: torch.device) -> torch.Tensor:
    """A tensor on the device; the host does not wait for the copy."""
    tensor = torch.from_numpy(np.ascontiguousarray(values))
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor


def pack_prompts(
    jobs: Sequence[PromptJob], starts: Sequence[int], audio_token: int, device: torch.device
) -> PackedPrompts:
    """The prompts of jobs; `starts`: of their spans."""
    lengths = np.array([len(job.ids) for job in jobs])
    bounds = np.concatenate([[0], np.cumsum(lengths)])
    ids = np.fromiter(itertools.chain.from_iterable(job.ids for job in jobs), np.int64, bounds[-1])
    positions = np.arange(bounds[-1]) - np.repeat(bounds[:-1], lengths)
    places = positions + np.repeat(starts, lengths)
    audio_at = np.flatnonzero(ids == audio_token)
    packed = (ids, positions, places, audio_at, bounds)  # one copy to the device instead of five
    parts = torch.split(on_device(np.concatenate(packed), device), [len(part) for part in packed])
    return PackedPrompts(
        ids=parts[0],
        positions=parts[1],
        places=parts[2],
        audio_at=parts[3],
        bounds=parts[4].int(),
        last=parts[4][1:] - 1,
        longest=int(lengths.max()),
    )


def copy_spans(cache: Cache, copies: Sequence[tuple[int, int, int]], device: torch.device) -> None:
    """Copies positions of the cache: (first source, first target, number), all at once."""
    if not copies:
        return
    source = on_device(np.concatenate([np.arange(n) + first for first, _, n in copies]), device)
    target = on_device(np.concatenate([np.arange(n) + first for _, first, n in copies]), device)
    for block in cache.keys_values:
        block[target] = block[source]
