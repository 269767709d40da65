"""Handles Ctrl-C, and SIGTERM, which a preempted machine sends about thirty seconds before it stops."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from caspi.errors import CaspiError

_log = logging.getLogger(__name__)


class Interrupted(CaspiError):
    """The run was interrupted and saved: run the same command again to resume. Schedulers know it by the exit code."""

    exit_code = 75  # EX_TEMPFAIL


@contextlib.contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """Inside the block SIGTERM raises Interrupted, as Ctrl-C raises KeyboardInterrupt; in the main thread only."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        raise Interrupted("received SIGTERM")

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class Interruption:
    """Whether this process was asked to stop; training checks between micro-batches, evaluation between tokens."""

    def __init__(self) -> None:
        self.requested = False

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Records SIGTERM and the first Ctrl-C instead of ending; the second Ctrl-C ends at once. Works only in the
        main thread; elsewhere it changes nothing."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        # A process that a shell started in the background ignores Ctrl-C, and continues to do so.
        listening = [number for number in (signal.SIGTERM, signal.SIGINT) if signal.getsignal(number) != signal.SIG_IGN]
        before = [(number, signal.signal(number, self._note)) for number in listening]
        try:
            yield
        finally:
            for number, handler in before:
                signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.requested:
            raise KeyboardInterrupt
        self.requested = True
        how = "SIGTERM" if number == signal.SIGTERM else "Ctrl-C"
        again = "" if number == signal.SIGTERM else "; press Ctrl-C again to stop without saving"
        _log.info(f"received {how}: saving, then stopping{again}")
