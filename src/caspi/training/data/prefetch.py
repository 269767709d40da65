"""Copies micro-batches to the device: the next one is copied while the device computes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from caspi.errors import CaspiError
from caspi.model.batch import Batch
from caspi.model.tensors import each_tensor, to_device
from caspi.training.data.steps import OptimizerStep, PlannedSteps
from caspi.training.metrics_log import MetricsLog


@dataclass(frozen=True, slots=True)
class _Copy:
    of: Batch
    batch: Batch
    done: torch.cuda.Event


class DevicePrefetcher:
    """Copies one micro-batch ahead, on its own stream; without a GPU there is nothing to copy."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        self._ahead: _Copy | None = None

    def ahead(self, batch: Batch | None) -> None:
        """Starts copying the batch that will be taken next."""
        if self._stream is None or batch is None:
            return
        with torch.cuda.stream(self._stream):
            self._ahead = _Copy(batch, to_device(batch, self._device), self._stream.record_event())

    def take(self, batch: Batch) -> Batch:
        """The batch on the device; copied now if the copy was not started before."""
        copy, self._ahead = self._ahead, None
        if copy is None or copy.of is not batch:
            return to_device(batch, self._device)
        current = torch.cuda.current_stream(self._device)
        current.wait_event(copy.done)

        def read(tensor: torch.Tensor) -> torch.Tensor:
            tensor.record_stream(current)  # its memory is not reused for another copy before it was read
            return tensor

        return each_tensor(copy.batch, read)


class IncomingSteps:
    """The steps of a stage, one after another: the next one is fetched, and its copy to the device starts, while the
    device computes. steps: made them, and cuts a step again after the device ran out of memory."""

    def __init__(
        self, loaded: Iterator[OptimizerStep | CaspiError], steps: PlannedSteps, device: torch.device, log: MetricsLog
    ) -> None:
        self._loaded, self._steps, self._device, self._log = loaded, steps, device, log
        self.prefetcher = DevicePrefetcher(device)
        self._queued: OptimizerStep | None = None

    def next(self) -> OptimizerStep:
        """The next step. Raises CaspiError if data cannot be read."""
        step, self._queued = self._queued or self._fetch(), None
        assert step is not None, "more steps were asked for than were planned"
        return step

    def look_ahead(self) -> None:
        """Fetches the next step and starts copying it, while the device computes what was launched before."""
        self._queued = self._queued or self._fetch()
        if self._queued is not None:
            with contextlib.suppress(torch.OutOfMemoryError):  # then it is copied when it is needed
                self.prefetcher.ahead(self._queued.batches[0])

    def refit(self) -> None:
        """Cuts a step again that was fetched before the device ran out of memory."""
        self._queued = None if self._queued is None else self._steps.refit(self._queued)

    def _fetch(self) -> OptimizerStep | None:
        """The next step, None at the end. Counts the time as waiting, unless the device was busy until the end."""
        started, launched = time.monotonic(), None
        if self._device.type == "cuda":
            launched = torch.cuda.current_stream(self._device).record_event()
        found = next(self._loaded, None)
        if launched is None or launched.query():
            self._log.waited(time.monotonic() - started)
        if isinstance(found, CaspiError):
            raise found
        # Micro-batches that workers made before the device ran out of memory are still too large.
        return found if found is None else self._steps.refit(found)
