"""A machine that is being taken away says so with SIGTERM, some thirty seconds ahead."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

from caspi.errors import CaspiError


class Interrupted(CaspiError):
    """The run was asked to end, and saved."""


class Interruption:
    """Whether this process was asked to end; training looks between micro-batches, evaluation between tokens."""

    def __init__(self) -> None:
        self.asked = False

    @contextlib.contextmanager
    def heard(self) -> Iterator[None]:
        """Notes SIGTERM instead of dying of it. Only the main thread may listen; elsewhere it changes nothing."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGTERM, self._note)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        print("asked to end (SIGTERM): saving", file=sys.stderr, flush=True)
