"""What the generator and the beam search share: jobs that wait in order, and jobs that have begun."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections import deque
from typing import Generic, TypeVar

from caspi.errors import CaspiError
from caspi.inference.engine.packing import PromptJob

Begun = TypeVar("Begun")


class JobQueue(ABC, Generic[Begun]):
    """Jobs by their tickets. A subclass moves them from `_waiting` to `_active`, and ends them. For one thread."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[int, PromptJob]] = deque()
        self._active: dict[int, Begun] = {}
        self._failed: list[tuple[int, CaspiError]] = []
        self._tickets = itertools.count()

    @property
    def waiting(self) -> int:
        """Jobs that have not begun."""
        return len(self._waiting)

    @property
    def busy(self) -> bool:
        """Whether any job is not finished."""
        return bool(self._waiting or self._active)

    def add(self, job: PromptJob) -> int:
        """Returns the job's ticket."""
        ticket = next(self._tickets)
        self._waiting.append((ticket, job))
        return ticket

    def cancel(self, ticket: int) -> None:
        """Forgets a job, wherever it is; does nothing if it has ended."""
        self._waiting = deque(item for item in self._waiting if item[0] != ticket)
        if (begun := self._active.pop(ticket, None)) is not None:
            self._release(begun)

    def cancel_all(self) -> None:
        """Forgets all jobs."""
        self._waiting.clear()
        for begun in self._active.values():
            self._release(begun)
        self._active.clear()
        self._failed.clear()

    def take_failures(self) -> list[tuple[int, CaspiError]]:
        """The jobs that could not be done, since the last call."""
        failed, self._failed = self._failed, []
        return failed

    def _fail_first(self, error: CaspiError) -> None:
        """Gives up the job that is the next to begin; the others go on."""
        ticket, _ = self._waiting.popleft()
        self._failed.append((ticket, error))

    @abstractmethod
    def _release(self, begun: Begun) -> None:
        """Gives back the rows and spans of a job that has ended."""
