"""A machine that is being taken away says so with SIGTERM, some thirty seconds ahead."""

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
    """The run was asked to end, and saved: run the same command again. Schedulers tell it from a failure."""

    exit_code = 75  # EX_TEMPFAIL


class Interruption:
    """Whether this process was asked to end; training looks between micro-batches, evaluation between tokens."""

    def __init__(self) -> None:
        self.asked = False

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Notes SIGTERM and the first Ctrl-C instead of dying of it; the second Ctrl-C ends at once. Only the main
        thread may listen; elsewhere it changes nothing."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        # What a shell started in the background is deaf to Ctrl-C, and stays so.
        listening = [number for number in (signal.SIGTERM, signal.SIGINT) if signal.getsignal(number) != signal.SIG_IGN]
        before = [(number, signal.signal(number, self._note)) for number in listening]
        try:
            yield
        finally:
            for number, handler in before:
                signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.asked:
            raise KeyboardInterrupt
        self.asked = True
        by = "SIGTERM" if number == signal.SIGTERM else "Ctrl-C; once more ends at once, without saving"
        _log.info(f"asked to end ({by}): saving")
