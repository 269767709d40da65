"""Processes that decode uploads: a hostile file ends the process that reads it, and costs one request."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import multiprocessing
import resource
import signal
import threading
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path, PurePath
from typing import Any

from caspi.audio import AudioError, Seconds
from caspi.inference.inputs import AudioInput
from caspi.inference.long_audio import Window
from caspi.inference.reading import Ended, pieces_of
from caspi.inference.speech_detection import speech_detector

_MEMORY = 4 << 30  # bytes of addresses that a worker may use: libraries take 2 GB of them
_STEP_SECONDS = 20.0  # without a sign of life: a minute of audio takes a tenth of a second
_BYTES_PER_SECOND = 1 << 20  # by which an upload comes later than a small one that comes at the same time
_SIGN_EVERY = 60.0  # seconds of audio without speech


@dataclass(frozen=True, slots=True)
class DecodingLimits:
    """longest: audio of one upload, in seconds. step: wall seconds without a piece or a sign of life."""

    longest: Seconds = 4 * 3600.0
    memory: int = _MEMORY
    step: Seconds = _STEP_SECONDS


class DecodingWorkers:
    """Processes, each for one upload at a time. A process that dies or takes too long is replaced. Short uploads come
    before long ones that have not waited for long."""

    def __init__(self, count: int, max_window: Seconds, limits: DecodingLimits | None = None) -> None:
        self._limits = limits or DecodingLimits()
        self.longest = self._limits.longest
        self._max_window = max_window
        self._context = multiprocessing.get_context("spawn")
        self._changed = threading.Condition()
        self._numbers = itertools.count()
        self._queue: list[tuple[float, int]] = []  # who waits, by when it would come if it were alone
        self._all = {self._new() for _ in range(count)}
        self._free = list(self._all)

    def pieces(self, path: Path, *, detect_speech: bool = True) -> Generator[Window | Ended, None, None]:
        """The windows with speech of a file, and its end; waits for a process. Leaving early ends the process. Raises
        AudioError."""
        worker = self._taken(path.stat().st_size)
        healthy = False
        try:
            worker.connection.send((str(path), detect_speech))
            while True:
                piece = self._next(worker)
                if isinstance(piece, AudioError):
                    healthy = True
                    raise piece
                if isinstance(piece, Ended):
                    healthy = True
                    yield piece
                    return
                if piece is not None:
                    yield piece
        finally:
            self._give_back(worker if healthy else self._replaced(worker))

    def _taken(self, size: int) -> _Worker:
        """A free process, in turn."""
        mine = (time.monotonic() + size / _BYTES_PER_SECOND, next(self._numbers))
        with self._changed:
            heapq.heappush(self._queue, mine)
            self._changed.wait_for(lambda: self._free and self._queue[0] == mine)
            heapq.heappop(self._queue)
            worker = self._free.pop()
            self._changed.notify_all()
        return worker if worker.process.is_alive() else self._replaced(worker)

    def _give_back(self, worker: _Worker) -> None:
        with self._changed:
            self._free.append(worker)
            self._changed.notify_all()

    def _next(self, worker: _Worker) -> Window | Ended | AudioError | None:
        """None: a sign of life."""
        try:
            if not worker.connection.poll(self._limits.step):
                raise AudioError("corrupt_audio", f"decoding gave nothing in {self._limits.step:g} s")
            piece: Window | Ended | AudioError | None = worker.connection.recv()
        except (EOFError, OSError) as error:
            raise AudioError("corrupt_audio", "the decoder crashed, or took too much memory") from error
        return piece

    def close(self) -> None:
        with self._changed:
            for worker in self._all:
                worker.end()
            self._all.clear()

    def _new(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=_work, args=(theirs, self._max_window, self._limits), name="decoder", daemon=True
        )
        process.start()
        theirs.close()
        return _Worker(process, ours)

    def _replaced(self, worker: _Worker) -> _Worker:
        worker.end()
        made = self._new()
        with self._changed:
            self._all.discard(worker)
            self._all.add(made)
        return made


@dataclass(frozen=True, eq=False)
class _Worker:
    process: Any
    connection: Connection

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()


def _work(connection: Connection, max_window: Seconds, limits: DecodingLimits) -> None:
    """The life of a process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal; the server ends its processes
    resource.setrlimit(resource.RLIMIT_AS, (limits.memory, limits.memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(EOFError, OSError):
        while True:
            path, detect_speech = connection.recv()
            try:
                for piece in _signs_of(Path(path), max_window, limits, detect_speech=detect_speech):
                    connection.send(piece)
            except AudioError as error:
                connection.send(AudioError(error.reason, error.detail.replace(path, "the file")))
            except MemoryError:
                connection.send(AudioError("corrupt_audio", "decoding takes too much memory"))


def _signs_of(
    path: Path, max_window: Seconds, limits: DecodingLimits, *, detect_speech: bool
) -> Iterator[Window | Ended | None]:
    """The pieces of a file; None where it has none for a while."""
    last = 0.0
    taken = AudioInput(path, PurePath("upload"))
    for seconds, piece in pieces_of(taken, speech_detector(detect_speech), max_window):
        if seconds > limits.longest:
            raise AudioError("too_long", f"more than {limits.longest:g} s of audio")
        if piece is not None or seconds >= last + _SIGN_EVERY:
            yield piece
            last = seconds
