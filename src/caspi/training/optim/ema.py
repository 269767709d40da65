"""An exponential moving average of the trained weights (Polyak and Juditsky 1992, SIAM J. Control Optim. 30.4)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch


class Ema:
    """The average of parameters, in their own dtype and placement; its decay grows from step to step up to `decay`."""

    def __init__(self, parameters: Mapping[str, torch.Tensor], decay: float) -> None:
        self._parameters, self._decay = parameters, decay
        self.values = {name: parameter.detach().clone() for name, parameter in parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Call after optimizer step `step`, counted from 1. The decay is lower in the first steps, so that the initial
        weights do not dominate."""
        decay = min(self._decay, (1 + step) / (10 + step))
        for name, parameter in self._parameters.items():
            self.values[name].lerp_(parameter, 1 - decay)

    @torch.no_grad()
    def _exchange(self) -> None:
        for name, parameter in self._parameters.items():
            own = parameter.detach().clone()
            parameter.copy_(self.values[name])
            self.values[name].copy_(own)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside the block the model holds the average; afterwards its own weights again, bit for bit."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()
