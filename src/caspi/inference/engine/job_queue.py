"""What the generator and the beam search share: jobs that wait in order, and jobs that have begun."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections import deque
from typing import Generic, TypeVar

from caspi.inference.engine.packing import PromptJob

Begun = TypeVar("Begun")


class JobQueue(ABC, Generic[Begun]):
    """Jobs by their tickets. A subclass moves them from `_waiting` to `_active`, and ends them. For one thread."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[int, PromptJob]] = deque()
        self._active: dict[int, Begun] = {}
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

    @abstractmethod
    def _release(self, begun: Begun) -> None:
        """Gives back the rows and spans of a job that has ended."""
