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
    source: Batch
    batch: Batch
    done: torch.cuda.Event


class DevicePrefetcher:
    """Copies one micro-batch ahead, on its own stream; without a GPU nothing is copied."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        self._started: _Copy | None = None

    def start_copy(self, batch: Batch | None) -> None:
        """Starts copying the batch that will be taken next."""
        if self._stream is None or batch is None:
            return
        with torch.cuda.stream(self._stream):
            self._started = _Copy(batch, to_device(batch, self._device), self._stream.record_event())

    def take(self, batch: Batch) -> Batch:
        """The batch on the device; copied now if the copy was not started before."""
        copy, self._started = self._started, None
        if copy is None or copy.source is not batch:
            return to_device(batch, self._device)
        current = torch.cuda.current_stream(self._device)
        current.wait_event(copy.done)

        def read(tensor: torch.Tensor) -> torch.Tensor:
            tensor.record_stream(current)  # another copy must not reuse its memory before it is read
            return tensor

        return each_tensor(copy.batch, read)


class IncomingSteps:
    """The steps of a stage, one after another: while the device computes, the next one is fetched and its copy to the
    device starts. steps: cuts a step into smaller micro-batches after the device ran out of memory."""

    def __init__(
        self, loaded: Iterator[OptimizerStep | CaspiError], steps: PlannedSteps, device: torch.device, log: MetricsLog
    ) -> None:
        self._loaded, self._steps, self._device, self._log = loaded, steps, device, log
        self.prefetcher = DevicePrefetcher(device)
        self._queued: OptimizerStep | None = None

    def next(self) -> OptimizerStep:
        """The next step. Raises CaspiError if data cannot be read."""
        step, self._queued = self._queued or self._fetch(), None
        assert step is not None, "more steps were requested than planned"
        return step

    def fetch_next(self) -> None:
        """Fetches the next step and starts copying it, while the device computes what was launched before."""
        self._queued = self._queued or self._fetch()
        if self._queued is not None:
            with contextlib.suppress(torch.OutOfMemoryError):  # it is copied later, when it is needed
                self.prefetcher.start_copy(self._queued.batches[0])

    def refit(self) -> None:
        """Cuts the fetched step into micro-batches that fit, after the device ran out of memory."""
        self._queued = None if self._queued is None else self._steps.refit(self._queued)

    def _fetch(self) -> OptimizerStep | None:
        """The next step, None at the end. Counts the time as waiting, unless the device was busy the whole time."""
        started, device_event = time.monotonic(), None
        if self._device.type == "cuda":
            device_event = torch.cuda.current_stream(self._device).record_event()
        step = next(self._loaded, None)
        if device_event is None or device_event.query():
            self._log.add_waiting(time.monotonic() - started)
        if isinstance(step, CaspiError):
            raise step
        # Micro-batches that workers made before the device ran out of memory are still too large.
        return step if step is None else self._steps.refit(step)
