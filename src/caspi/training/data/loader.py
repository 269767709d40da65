"""Loads steps in order, in worker processes that survive a termination signal."""

from __future__ import annotations

import atexit
import functools
import multiprocessing
import signal

import torch
from torch.utils.data import DataLoader

from caspi.errors import CaspiError
from caspi.training.data.steps import OptimizerStep, PlannedSteps


class _OneByOne:
    """Batch sampler of single steps, beginning with step `first`."""

    def __init__(self, first: int, count: int) -> None:
        self._first, self._count = first, count

    def __len__(self) -> int:
        return self._count - self._first

    def __iter__(self):  # type: ignore[no-untyped-def]
        return ([index] for index in range(self._first, self._count))


def _outlive_termination(_: int) -> None:
    """Ignores termination signals. A machine that shuts down sends them to every process, but the trainer still needs
    its workers to save."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C goes to all processes


@functools.cache
def _end_workers_at_exit() -> None:
    """Kills workers at exit. Python sends them SIGTERM, which they ignore, and waits: a failed run would never end."""

    def kill() -> None:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler would raise for each
        for child in multiprocessing.active_children():
            if child.daemon:
                child.kill()

    atexit.register(kill)


def _only(steps: list[OptimizerStep | CaspiError]) -> OptimizerStep | CaspiError:
    return steps[0]


def loader(steps: PlannedSteps, workers: int, first: int = 0) -> DataLoader[OptimizerStep | CaspiError]:
    """Loads steps in order, beginning with number `first`; with workers, ahead of the device."""
    if workers:
        _end_workers_at_exit()
    return DataLoader(
        steps,
        batch_sampler=_OneByOne(first, len(steps)),
        collate_fn=_only,
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        worker_init_fn=_outlive_termination if workers else None,
        pin_memory=torch.cuda.is_available(),
    )
