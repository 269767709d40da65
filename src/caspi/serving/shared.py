"""One model for many callers: a thread polls the engine, and recordings of all callers share its rows."""

from __future__ import annotations

import logging
import queue
import threading
from concurrent.futures import Future

from caspi.errors import CaspiError
from caspi.inference.transcriber import Recording, Transcriber, Transcript

_log = logging.getLogger(__name__)


class SharedTranscriber:
    """Transcribes for any number of threads. A cancelled future's work is dropped; an error ends one recording, and a
    failure of the engine those that are in it, but not the service."""

    def __init__(self, transcriber: Transcriber) -> None:
        self._transcriber = transcriber
        self._inbox: queue.Queue[tuple[Recording, Future[Transcript]] | None] = queue.Queue()
        self._futures: dict[int, Future[Transcript]] = {}
        self._thread = threading.Thread(target=self._run, name="transcriber", daemon=True)
        self._thread.start()

    def submit(self, recording: Recording) -> Future[Transcript]:
        """The future has the transcript, or a CaspiError."""
        future: Future[Transcript] = Future()
        self._inbox.put((recording, future))
        return future

    def close(self) -> None:
        """Drops what is not done, and ends the thread."""
        self._inbox.put(None)
        self._thread.join()

    def _run(self) -> None:
        while self._receive():
            self._drop_cancelled()
            try:
                results = self._transcriber.poll()
            except Exception as error:
                _log.exception("the engine failed; its recordings are lost, the next ones start anew")
                self._fail_all(CaspiError(f"the engine failed: {type(error).__name__}"))
                continue
            for ticket, result in results:
                future = self._futures.pop(ticket)
                if not future.set_running_or_notify_cancel():
                    continue
                if isinstance(result, CaspiError):
                    future.set_exception(result)
                else:
                    future.set_result(result)
        self._fail_all(CaspiError("the server is closing"))

    def _receive(self) -> bool:
        """Takes what has come; waits if there is nothing to do. False: to end."""
        while True:
            try:
                message = self._inbox.get(block=not self._transcriber.pending)
            except queue.Empty:
                return True
            if message is None:
                return False
            recording, future = message
            if future.cancelled():
                continue
            try:
                self._futures[self._transcriber.submit(recording)] = future
            except CaspiError as error:
                future.set_exception(error)

    def _drop_cancelled(self) -> None:
        for ticket in [ticket for ticket, future in self._futures.items() if future.cancelled()]:
            del self._futures[ticket]
            self._transcriber.cancel(ticket)

    def _fail_all(self, error: CaspiError) -> None:
        for future in self._futures.values():
            if future.set_running_or_notify_cancel():
                future.set_exception(error)
        self._futures.clear()
