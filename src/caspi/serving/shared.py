"""One model for many callers: a thread polls the engine, and windows of all callers share its rows."""

from __future__ import annotations

import logging
import pickle
import queue
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Protocol

from caspi.audio import SAMPLE_RATE, Seconds
from caspi.errors import CaspiError
from caspi.inference.engine.requests import Hypothesis
from caspi.inference.long_audio import Window, windows
from caspi.inference.transcriber import Recording, Transcriber, TranscriptionOptions
from caspi.inference.transcripts import HeardWindow, Transcript

_log = logging.getLogger(__name__)

_WINDOWS_AT_ONCE = 16  # of one job
OnWindow = Callable[[HeardWindow], None]
OnPartial = Callable[[str], None]


class _Overflow:
    """Windows that wait on disk, in order."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="caspi-windows-")  # noqa: SIM115 - closed with the job
        self._read = self._written = self.count = 0

    def append(self, window: Window) -> None:
        """Raises OSError where the disk is full."""
        self._file.seek(self._written)
        pickle.dump(window, self._file)
        self._file.flush()
        self._written = self._file.tell()
        self.count += 1

    def pop(self) -> Window:
        self._file.seek(self._read)
        window: Window = pickle.load(self._file)  # noqa: S301 - our own
        self._read = self._file.tell()
        self.count -= 1
        return window


class Job:
    """A recording whose windows come in. `future` has the transcript, or a CaspiError; cancelling it ends the work.
    Few windows are with the backend at once, so that other jobs come in between; the rest waits on disk."""

    def __init__(
        self,
        inbox: Callable[[Job, Window | Seconds | None], None],
        options: TranscriptionOptions,
        on_window: OnWindow | None,
        on_partial: OnPartial | None,
    ) -> None:
        """on_window, on_partial: as in Transcriber.begin; called by the thread of the backend."""
        self.options, self.on_window, self.on_partial = options, on_window, on_partial
        self.future: Future[Transcript] = Future()
        self._inbox = inbox
        self._lock = threading.RLock()
        self._inside = 0  # windows with the backend
        self._overflow: _Overflow | None = None
        self._seconds: Seconds | None = None  # of the recording, while windows wait
        inbox(self, None)

    def add(self, window: Window) -> bool:
        """The next window. False: the job has ended. Raises OSError where the disk is full."""
        with self._lock:
            if self._inside < _WINDOWS_AT_ONCE and not (self._overflow and self._overflow.count):
                self._inside += 1
                self._inbox(self, window)
            else:
                self._overflow = self._overflow or _Overflow()
                self._overflow.append(window)
        return not self.future.done()

    def end(self, seconds: Seconds) -> None:
        """There are no more windows, and the recording has this length."""
        with self._lock:
            if self._overflow and self._overflow.count:
                self._seconds = seconds
            else:
                self._inbox(self, seconds)

    def heard(self, window: HeardWindow) -> None:
        """Called by the backend."""
        with self._lock:
            if self._overflow and self._overflow.count:
                self._inbox(self, self._overflow.pop())
                if not self._overflow.count and self._seconds is not None:
                    self._inbox(self, self._seconds)
            else:
                self._inside -= 1
        if self.on_window and not self.future.cancelled():
            self.on_window(window)

    def partial(self, text: str) -> None:
        """Called by the backend."""
        if self.on_partial and not self.future.cancelled():
            self.on_partial(text)


class Backend(Protocol):
    """What transcribes for the server."""

    name: str
    max_window: Seconds
    knows_tokens: bool

    def open(
        self, options: TranscriptionOptions, on_window: OnWindow | None = None, on_partial: OnPartial | None = None
    ) -> Job: ...

    def written_tokens(self, hypothesis: Hypothesis) -> list[tuple[bytes, float]]:
        """What each token of the text writes, with its log-probability; none if it does not know its tokens."""

    def close(self) -> None: ...


class SharedTranscriber:
    """Transcribes for any number of threads. A cancelled future's work is dropped; an error ends one recording, and a
    failure of the engine those that are in it, but not the service."""

    knows_tokens = True

    def __init__(self, transcriber: Transcriber, name: str = "caspi") -> None:
        self.name, self.max_window = name, transcriber.max_window
        self._transcriber = transcriber
        self._inbox: queue.Queue[tuple[Job, Window | Seconds | None] | None] = queue.Queue()
        self._jobs: dict[int, Job] = {}
        self._tickets: dict[Job, int] = {}
        self._thread = threading.Thread(target=self._run, name="transcriber", daemon=True)
        self._thread.start()

    def open(
        self, options: TranscriptionOptions, on_window: OnWindow | None = None, on_partial: OnPartial | None = None
    ) -> Job:
        """A recording whose windows follow."""
        return Job(lambda job, message: self._inbox.put((job, message)), options, on_window, on_partial)

    def submit(self, recording: Recording) -> Future[Transcript]:
        """A recording whose samples are known. The future has the transcript, or a CaspiError."""
        job = Job(lambda job, message: self._inbox.put((job, message)), recording.options, None, None)
        for first, last in windows(recording.samples, self.max_window):
            self._inbox.put((job, Window(first, recording.samples[first:last])))
        job.end(len(recording.samples) / SAMPLE_RATE)
        return job.future

    def written_tokens(self, hypothesis: Hypothesis) -> list[tuple[bytes, float]]:
        prompt = self._transcriber.prompt
        first = hypothesis.text_start
        pairs = zip(hypothesis.tokens[first:], hypothesis.log_probabilities[first:], strict=True)
        return [(prompt.token_bytes(token), value) for token, value in pairs if token != prompt.end]

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
                job = self._forget(ticket)
                if not job.future.set_running_or_notify_cancel():
                    continue
                if isinstance(result, CaspiError):
                    job.future.set_exception(result)
                else:
                    job.future.set_result(result)
        self._fail_all(CaspiError("the server is closing"))

    def _receive(self) -> bool:
        """Takes what has come; waits if there is nothing to do. False: to end."""
        while True:
            try:
                message = self._inbox.get(block=not self._transcriber.working)
            except queue.Empty:
                return True
            if message is None:
                return False
            job, content = message
            try:
                self._take(job, content)
            except CaspiError as error:
                self._forget(self._tickets[job])
                if job.future.set_running_or_notify_cancel():
                    job.future.set_exception(error)

    def _take(self, job: Job, content: Window | Seconds | None) -> None:
        if job.future.cancelled():
            if job in self._tickets:
                self._transcriber.cancel(self._tickets[job])
                self._forget(self._tickets[job])
        elif content is None:
            ticket = self._transcriber.begin(job.options, job.heard, job.partial if job.on_partial else None)
            self._jobs[ticket], self._tickets[job] = job, ticket
        elif job not in self._tickets:
            return  # it failed a moment ago
        elif isinstance(content, Window):
            self._transcriber.add(self._tickets[job], content)
        else:
            self._transcriber.end(self._tickets[job], content)

    def _forget(self, ticket: int) -> Job:
        job = self._jobs.pop(ticket)
        del self._tickets[job]
        return job

    def _drop_cancelled(self) -> None:
        for ticket in [ticket for ticket, job in self._jobs.items() if job.future.cancelled()]:
            self._forget(ticket)
            self._transcriber.cancel(ticket)

    def _fail_all(self, error: CaspiError) -> None:
        for job in self._jobs.values():
            if job.future.set_running_or_notify_cancel():
                job.future.set_exception(error)
        self._jobs.clear()
        self._tickets.clear()
