"""An exponential moving average of what is trained (Polyak and Juditsky 1992, SIAM J. Control Optim. 30.4)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch


class Ema:
    """Follows parameters, in their own dtype and placement; the decay grows from step to step up to `decay`."""

    def __init__(self, parameters: Mapping[str, torch.Tensor], decay: float) -> None:
        self._parameters, self._decay = parameters, decay
        self.values = {name: parameter.detach().clone() for name, parameter in parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """After optimizer step number `step`, counted from 1. Early on a long memory would keep the start."""
        decay = min(self._decay, (1 + step) / (10 + step))
        for name, parameter in self._parameters.items():
            self.values[name].lerp_(parameter, 1 - decay)

    @torch.no_grad()
    def _exchange(self) -> None:
        for name, parameter in self._parameters.items():
            kept = parameter.detach().clone()
            parameter.copy_(self.values[name])
            self.values[name].copy_(kept)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """The model is the average inside, and to the last bit what it was afterwards."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()
