"""Reads recordings with threads, and cuts them into windows with speech: ahead of need, in bounded memory."""

from __future__ import annotations

import contextlib
import os
import queue
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from caspi import audio
from caspi.audio import SAMPLE_RATE, AudioError, Seconds
from caspi.inference.inputs import AudioInput, Span
from caspi.inference.long_audio import LONGEST_PAUSE, SpeechCutter, Window
from caspi.inference.speech_detection import SpeechDetector

_THREADS_AT_MOST = 8
_WINDOWS_AHEAD = 64  # of all recordings: at most 120 MB
_LOOK_SECONDS = 0.2  # between two looks of a waiting thread at whether it is to end


@dataclass(frozen=True, slots=True)
class Ended:
    """A recording was read. seconds: of all of it, or of the part that was asked for. notes: warnings about it."""

    seconds: Seconds
    notes: tuple[str, ...]


Piece = Window | Ended | AudioError


def pieces_of(
    taken: AudioInput,
    detector: Callable[[], SpeechDetector],
    max_window: Seconds,
    longest_pause: Seconds = LONGEST_PAUSE,
) -> Iterator[tuple[Seconds, Window | Ended | None]]:
    """The windows with speech of a recording and then its end, with the seconds that were read so far; nothing but the
    seconds after a block in which no window ends. Raises AudioError."""
    source = taken.path or sys.stdin.buffer.read()
    stream = audio.open_stream(source, taken.channel)
    cutter = SpeechCutter(detector(), max_window, longest_pause)
    heard = 0
    for block in _within(stream.blocks, taken.span):
        heard += len(block)
        for window in cutter.add(block):
            yield heard / SAMPLE_RATE, _moved(window, taken.span)
        yield heard / SAMPLE_RATE, None
    for window in cutter.end():
        yield heard / SAMPLE_RATE, _moved(window, taken.span)
    if not heard:
        raise AudioError("empty_audio", f"{taken.shown}: it ends before that")
    notes = stream.findings.notes(stream.declared) if taken.span.until is None else []
    yield heard / SAMPLE_RATE, Ended(heard / SAMPLE_RATE, tuple(audio.MEANING[note] for note in notes))


def samples_of(taken: AudioInput) -> np.ndarray:
    """All samples of a recording that is a file, or of its part. Raises AudioError."""
    assert taken.path is not None
    return np.concatenate(list(_within(audio.open_stream(taken.path, taken.channel).blocks, taken.span)))


class WindowReader:
    """Reads recordings; `with` it, call `next_piece` until it has given an end or an error for each of them."""

    def __init__(
        self,
        inputs: Sequence[AudioInput],
        detector: Callable[[], SpeechDetector],
        max_window: Seconds,
        longest_pause: Seconds = LONGEST_PAUSE,
    ) -> None:
        """detector: makes one for a recording. longest_pause: inside of a window."""
        self._inputs = enumerate(inputs)
        self._taking = threading.Lock()
        self._detector, self._max_window, self._longest_pause = detector, max_window, longest_pause
        self._pieces: queue.Queue[tuple[int, Piece | BaseException]] = queue.Queue(_WINDOWS_AHEAD)
        self._stopping = threading.Event()
        count = max(1, min(_THREADS_AT_MOST, (os.cpu_count() or 1) - 1, len(inputs)))
        self._threads = [threading.Thread(target=self._run, name="reader", daemon=True) for _ in range(count)]

    def __enter__(self) -> WindowReader:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def next_piece(self, *, wait: bool) -> tuple[int, Piece] | None:
        """A piece with the number of its recording; those of a recording come in order. None: there is none yet."""
        try:
            number, piece = self._pieces.get(block=wait)
        except queue.Empty:
            return None
        if isinstance(piece, BaseException) and not isinstance(piece, AudioError):
            raise piece
        return number, piece

    def _run(self) -> None:
        while not self._stopping.is_set():
            with self._taking:
                number, taken = next(self._inputs, (None, None))
            if number is None or taken is None:
                return
            try:
                for _, piece in pieces_of(taken, self._detector, self._max_window, self._longest_pause):
                    if piece is not None:
                        self._put(number, piece)
                    elif self._stopping.is_set():
                        return
            except _Stopped:
                return
            except BaseException as error:  # whatever it is, the thread that waits for it is told
                with contextlib.suppress(_Stopped):
                    self._put(number, error)

    def _put(self, number: int, piece: Piece | BaseException) -> None:
        while not self._stopping.is_set():
            with contextlib.suppress(queue.Full):
                self._pieces.put((number, piece), timeout=_LOOK_SECONDS)
                return
        raise _Stopped


class _Stopped(Exception):
    """The reader was left."""


def _within(blocks: Iterator[np.ndarray], span: Span) -> Iterator[np.ndarray]:
    """The part of a recording."""
    first = round(span.start * SAMPLE_RATE)
    last = None if span.until is None else round(span.until * SAMPLE_RATE)
    position = 0
    for block in blocks:
        wanted = block[max(0, first - position) : None if last is None else max(0, last - position)]
        if len(wanted):
            yield wanted
        position += len(block)
        if last is not None and position >= last:
            return


def _moved(window: Window, span: Span) -> Window:
    """With its place in the whole recording."""
    return replace(window, first=window.first + round(span.start * SAMPLE_RATE))
