"""Micro-batches on their way to the device: the next one is copied while the device computes."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from caspi.model.batch import Batch
from caspi.model.tensors import each_tensor, to_device


@dataclass(frozen=True, slots=True)
class _Copy:
    of: Batch
    batch: Batch
    done: torch.cuda.Event


class DevicePrefetcher:
    """One micro-batch ahead, on a stream of its own; without a GPU there is nothing to copy."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        self._ahead: _Copy | None = None

    def ahead(self, batch: Batch | None) -> None:
        """Starts copying what will be taken next."""
        if self._stream is None or batch is None:
            return
        with torch.cuda.stream(self._stream):
            self._ahead = _Copy(batch, to_device(batch, self._device), self._stream.record_event())

    def take(self, batch: Batch) -> Batch:
        """The batch on the device, copied now where that was not begun."""
        copy, self._ahead = self._ahead, None
        if copy is None or copy.of is not batch:
            return to_device(batch, self._device)
        current = torch.cuda.current_stream(self._device)
        current.wait_event(copy.done)

        def read(tensor: torch.Tensor) -> torch.Tensor:
            tensor.record_stream(current)  # its memory is not given to another copy before
            return tensor

        return each_tensor(copy.batch, read)
