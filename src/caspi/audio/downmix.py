"""Mixes the channels of a recording to one."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from caspi.audio.base import AudioError
from caspi.audio.stream import Findings

_PROBE = 10.0  # seconds of audio used to decide how to mix the channels
_MOST_CANCELLED = 0.1  # maximum share of the energy in blocks where mixed channels cancel each other
_CANCELS = 0.5  # energy of the mix, relative to the mix of uncorrelated channels


class Downmix:
    """Mixes channels to one: their mean, or only the loudest if the mean would cancel the common signal.

    Decides from the first seconds, because returned samples cannot be changed later; checks until the end.
    """

    def __init__(self, name: str, findings: Findings) -> None:
        self._name, self._findings = name, findings
        self._products = np.zeros((0, 0))  # sums of products of channels, from one sample in 32
        self._heard = self._cancelled = 0.0  # energy of the channels, and the part in blocks where the mix cancels it

    def mono(self, blocks: Iterator[np.ndarray], rate: int) -> Iterator[np.ndarray]:
        """blocks [n, channels], whose memory may be reused for the next one, to mono [n]. Raises AudioError if the
        mixed channels cancel each other overall."""
        held: list[np.ndarray] | None = []
        frames = 0
        for block in blocks:
            if block.shape[1] == 1:
                yield block[:, 0]
                continue
            self._hear(block)
            frames += len(block) if self._products.any() else 0  # leading silence does not count
            if held is None:
                yield self._mixed(block)
                continue
            held.append(block.copy())
            if frames >= _PROBE * rate:
                yield from self._decided(held)
                held = None
        if held:
            yield from self._decided(held)
        if len(self._products):
            self._look_back()

    def _decided(self, held: list[np.ndarray]) -> Iterator[np.ndarray]:
        if self._cancels():
            self._findings.only_channel = int(np.diag(self._products).argmax())
        self._compare()
        return map(self._mixed, held)

    def _mixed(self, block: np.ndarray) -> np.ndarray:
        only = self._findings.only_channel
        return _mono(block) if only is None else np.ascontiguousarray(block[:, only])

    def _hear(self, block: np.ndarray) -> None:
        some = block[::32].astype(np.float64)
        products = some.T @ some
        own = float(np.trace(products))
        self._heard += own
        self._cancelled += own if products.sum() < _CANCELS * own else 0.0
        self._products = self._products + products if len(self._products) else products

    def _cancels(self) -> bool:
        own = np.trace(self._products)
        return bool(own > 0 and self._products.sum() < _CANCELS * own)

    def _look_back(self) -> None:
        """Raises AudioError."""
        if self._findings.only_channel is None and self._cancelled > _MOST_CANCELLED * self._heard:
            raise AudioError("out_of_phase", f"{self._name}: the channels cancel each other: set channel")
        self._compare()

    def _compare(self) -> None:
        energy = np.diag(self._products)
        self._findings.dead_channel = bool(energy.min() <= 1e-6 * energy.max())
        if len(energy) == 2 and energy.min() > 0.01 * energy.max():
            alike = self._products[0, 1] / np.sqrt(energy[0] * energy[1])
            self._findings.channels_differ = bool(abs(alike) < 0.3)


def _mono(block: np.ndarray) -> np.ndarray:
    """Mean over channels, [n, channels] to [n]. Adding columns is several times as fast as `mean(axis=1)`."""
    mono = block[:, 0]
    if block.shape[1] > 1:
        mono = block[:, 0] + block[:, 1]
        for channel in range(2, block.shape[1]):
            mono += block[:, channel]
        mono *= 1 / block.shape[1]
    return mono
