"""Mixes the channels of a recording to one."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from caspi.audio.base import AudioError
from caspi.audio.stream import Findings

_PROBE_SECONDS = 10.0  # seconds of audio used to decide how to mix the channels
_MAX_CANCELLED_SHARE = 0.1  # of the energy: in blocks whose channels cancel each other
_CANCELLED_RATIO = 0.5  # energy of the mix, relative to the mix of uncorrelated channels


class Downmix:
    """Mixes channels to one: their mean, or only the loudest if the mean would cancel the common signal.

    Decides from the first seconds, because returned samples cannot be changed later; checks until the end.
    """

    def __init__(self, name: str, findings: Findings) -> None:
        self._name, self._findings = name, findings
        self._products = np.zeros((0, 0))  # sums of products of channels, from one sample in 32
        self._total_energy = 0.0  # of all channels
        self._cancelled_energy = 0.0  # the part of it in blocks whose channels cancel each other

    def mono(self, blocks: Iterator[np.ndarray], rate: int) -> Iterator[np.ndarray]:
        """blocks [n, channels], whose memory may be reused for the next one, to mono [n]. Raises AudioError if the
        mixed channels cancel each other overall."""
        pending: list[np.ndarray] | None = []
        frames = 0
        for block in blocks:
            if block.shape[1] == 1:
                yield block[:, 0]
                continue
            self._accumulate(block)
            frames += len(block) if self._products.any() else 0  # leading silence does not count
            if pending is None:
                yield self._mixed(block)
                continue
            pending.append(block.copy())
            if frames >= _PROBE_SECONDS * rate:
                yield from self._decide(pending)
                pending = None
        if pending:
            yield from self._decide(pending)
        if len(self._products):
            self._check_whole()

    def _decide(self, pending: list[np.ndarray]) -> Iterator[np.ndarray]:
        if self._cancels():
            self._findings.only_channel = int(np.diag(self._products).argmax())
        self._compare_channels()
        return map(self._mixed, pending)

    def _mixed(self, block: np.ndarray) -> np.ndarray:
        only = self._findings.only_channel
        return _mono(block) if only is None else np.ascontiguousarray(block[:, only])

    def _accumulate(self, block: np.ndarray) -> None:
        subsampled = block[::32].astype(np.float64)
        products = subsampled.T @ subsampled
        energy = float(np.trace(products))
        self._total_energy += energy
        self._cancelled_energy += energy if products.sum() < _CANCELLED_RATIO * energy else 0.0
        self._products = self._products + products if len(self._products) else products

    def _cancels(self) -> bool:
        energy = np.trace(self._products)
        return bool(energy > 0 and self._products.sum() < _CANCELLED_RATIO * energy)

    def _check_whole(self) -> None:
        """Raises AudioError if channels cancel each other after the first seconds."""
        if self._findings.only_channel is None and self._cancelled_energy > _MAX_CANCELLED_SHARE * self._total_energy:
            raise AudioError("out_of_phase", f"{self._name}: the channels cancel each other: set channel")
        self._compare_channels()

    def _compare_channels(self) -> None:
        energy = np.diag(self._products)
        self._findings.dead_channel = bool(energy.min() <= 1e-6 * energy.max())
        if len(energy) == 2 and energy.min() > 0.01 * energy.max():
            correlation = self._products[0, 1] / np.sqrt(energy[0] * energy[1])
            self._findings.channels_differ = bool(abs(correlation) < 0.3)


def _mono(block: np.ndarray) -> np.ndarray:
    """Mean over channels, [n, channels] to [n]. Adding columns is several times as fast as `mean(axis=1)`."""
    mono = block[:, 0]
    if block.shape[1] > 1:
        mono = block[:, 0] + block[:, 1]
        for channel in range(2, block.shape[1]):
            mono += block[:, channel]
        mono *= 1 / block.shape[1]
    return mono
