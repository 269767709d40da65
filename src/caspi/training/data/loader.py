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


class _SingleStepSampler:
    """Batch sampler of single steps, beginning with `first_step`."""

    def __init__(self, first_step: int, count: int) -> None:
        self._first_step, self._count = first_step, count

    def __len__(self) -> int:
        return self._count - self._first_step

    def __iter__(self):  # type: ignore[no-untyped-def]
        return ([index] for index in range(self._first_step, self._count))


def _ignore_termination(_: int) -> None:
    """Ignores termination signals. A machine that shuts down sends them to every process, but the trainer still needs
    its workers to save."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C goes to all processes


@functools.cache
def _end_workers_at_exit() -> None:
    """Kills workers at exit. Otherwise Python sends them SIGTERM, which they ignore, and waits forever."""

    def kill() -> None:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler would raise for each
        for child in multiprocessing.active_children():
            if child.daemon:
                child.kill()

    atexit.register(kill)


def _single_step(steps: list[OptimizerStep | CaspiError]) -> OptimizerStep | CaspiError:
    return steps[0]


def loader(steps: PlannedSteps, workers: int, first_step: int = 0) -> DataLoader[OptimizerStep | CaspiError]:
    """Loads steps in order, beginning with `first_step`; with workers, ahead of the device."""
    if workers:
        _end_workers_at_exit()
    return DataLoader(
        steps,
        batch_sampler=_SingleStepSampler(first_step, len(steps)),
        collate_fn=_single_step,
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        worker_init_fn=_ignore_termination if workers else None,
        pin_memory=torch.cuda.is_available(),
    )
