"""Transcribes audio of any length to text with times; used by evaluation, command line and server."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from caspi.audio import SAMPLE_RATE, Seconds
from caspi.errors import CaspiError
from caspi.inference.decoding_options import GREEDY, DecodingOptions
from caspi.inference.engine.engine import Engine
from caspi.inference.engine.generator import GeneratorOptions
from caspi.inference.engine.requests import DecodeRequest, Hypothesis
from caspi.inference.engine.streaming import results_of
from caspi.inference.long_audio import Window, longest_window, windows
from caspi.inference.speech_detection import FRAME
from caspi.inference.stitching import HeardInOrder
from caspi.inference.transcripts import HeardWindow, Transcript, heard_window, joined_transcript
from caspi.inference.window_decoder import WindowDecoder, loops_in
from caspi.model.hotwords import joined, tail
from caspi.model.loading import LoadedModel, load_to_decode
from caspi.model.timestamps import timestamp_prompt, without_times

SILENT_DB = -60.0  # of full scale, for the loudest 32 ms; below it the clip is silent
_SHORTEST = 0.1  # seconds: no word is shorter


def is_silent(samples: np.ndarray) -> bool:
    """Whether samples, float32 [n] at 16 kHz, are silent: no sound, or too short for a word."""
    if len(samples) < _SHORTEST * SAMPLE_RATE:
        return True
    frames = samples[: len(samples) // FRAME * FRAME].reshape(-1, FRAME)
    return float(np.square(frames).mean(axis=1).max()) < 10 ** (SILENT_DB / 10)


@dataclass(frozen=True, slots=True)
class TranscriptionOptions:
    """language: None: the model identifies it. context: of the system turn: hotwords, or the text before. times: of
    every phrase, for a model that was trained to output them. prefix: the start of the text of the first window, where
    it is known; needs a language."""

    language: str | None = None
    context: str = ""
    times: bool = False
    decoding: DecodingOptions = GREEDY
    prefix: str = ""


@dataclass(frozen=True, slots=True)
class Recording:
    """What to transcribe: samples float32 [n] at 16 kHz, of any length; the rest as in TranscriptionOptions."""

    samples: np.ndarray
    language: str | None = None
    context: str = ""
    times: bool = False
    decoding: DecodingOptions = GREEDY

    @property
    def options(self) -> TranscriptionOptions:
        return TranscriptionOptions(self.language, self.context, self.times, self.decoding)


@dataclass(slots=True)
class _Open:
    """A recording whose windows come in and are decoded. waiting: windows that are not submitted yet; running: tickets
    of those that are, and windows: they themselves. order: of those that are done. heard: those that were told, without
    their samples. shown: the last text that `on_partial` was given. seconds: of the whole recording, known when there
    are no more windows."""

    options: TranscriptionOptions
    on_window: Callable[[HeardWindow], None] | None
    on_partial: Callable[[str], None] | None
    waiting: deque[tuple[int, Window]] = field(default_factory=deque)
    running: dict[int, int] = field(default_factory=dict)
    windows: dict[int, Window] = field(default_factory=dict)
    order: HeardInOrder = field(default_factory=HeardInOrder)
    heard: list[HeardWindow] = field(default_factory=list)
    previous: str = ""
    shown: str = ""
    seconds: Seconds | None = None

    @property
    def complete(self) -> bool:
        return self.seconds is not None and len(self.heard) == self.order.expected


class Transcriber:
    """Decodes the windows of all recordings together, and joins their texts with spaces. No window is longer than the
    clips that the model was trained on, if the model states their length.

    A recording is submitted whole, or begun, given its windows one by one, and ended."""

    def __init__(self, loaded: LoadedModel, *, dtype: torch.dtype | None = None, engine: Engine | None = None) -> None:
        """dtype: of the computation; None: that of the weights."""
        self._decoder = WindowDecoder(engine or Engine(loaded, dtype=dtype))
        self.prompt = loaded.prompt
        self.max_window = longest_window(loaded.model.config.to_dict())
        self._tickets = itertools.count()
        self._opened: dict[int, _Open] = {}
        self._decoding: dict[int, tuple[int, int]] = {}  # (ticket, window) by the decoder's tickets
        self._changed: set[int] = set()  # recordings that may be complete
        self._partials_at = 0.0

    @classmethod
    def of(cls, model: str, device: str | None = None, options: GeneratorOptions | None = None) -> Transcriber:
        """MODEL on the GPU in bf16 if there is one, else on the CPU in fp32. Raises UsageError."""
        loaded = load_to_decode(model, device)
        transcriber = cls(loaded, engine=Engine(loaded, options=options))
        loaded.model.model.language_model.layers = torch.nn.ModuleList()  # the engine has its own copy
        return transcriber

    def transcribe(self, recordings: Sequence[Recording]) -> list[Transcript]:
        """Transcripts in the order of the recordings."""
        # Longest first: otherwise the last one may run alone.
        order = sorted(range(len(recordings)), key=lambda number: -len(recordings[number].samples))
        done = {order[place]: found for place, found in self.transcribe_each([recordings[n] for n in order])}
        return [done[number] for number in range(len(recordings))]

    def transcribe_each(self, recordings: Iterable[Recording]) -> Iterator[tuple[int, Transcript]]:
        """Transcripts as they are done, with the number of their recording. Recordings are taken as there is room. See
        `results_of`."""
        yield from results_of(self, recordings)

    # --- for one thread

    @property
    def wants_more(self) -> bool:
        """Whether more recordings or windows would keep the device busy."""
        return self._decoder.wants_more and sum(len(opened.waiting) for opened in self._opened.values()) < _MOST_WAITING

    @property
    def pending(self) -> bool:
        """Whether any recording has no transcript yet."""
        return bool(self._opened)

    @property
    def working(self) -> bool:
        """Whether `poll` has something to do: a window is being decoded, or a recording may be complete."""
        return bool(self._decoding or self._changed)

    def submit(self, recording: Recording) -> int:
        """Returns a ticket. Raises UsageError if the recording cannot be transcribed."""
        ticket = self.begin(recording.options)
        for first, last in windows(recording.samples, self.max_window):
            self.add(ticket, Window(first, recording.samples[first:last]))
        self.end(ticket, len(recording.samples) / SAMPLE_RATE)
        return ticket

    def begin(
        self,
        options: TranscriptionOptions,
        on_window: Callable[[HeardWindow], None] | None = None,
        on_partial: Callable[[str], None] | None = None,
    ) -> int:
        """A recording whose windows follow. on_window: called with each that has its text, in order, during `poll` or
        `add`. on_partial: called with the beginning of the text of the next one, whenever there is more of it."""
        ticket = next(self._tickets)
        self._opened[ticket] = _Open(options, on_window, on_partial)
        return ticket

    def add(self, ticket: int, window: Window) -> None:
        """The next window of a recording. Raises UsageError if it cannot be transcribed; the recording is then
        forgotten."""
        opened = self._opened[ticket]
        opened.waiting.append((opened.order.expect(), window))
        try:
            self._submit_waiting(ticket, opened)
        except BaseException:
            self.cancel(ticket)
            raise

    def end(self, ticket: int, seconds: Seconds) -> None:
        """A recording has no more windows, and this length."""
        opened = self._opened[ticket]
        opened.seconds = seconds
        opened.order.end()
        self._tell(ticket, opened)

    def cancel(self, ticket: int) -> None:
        """The recording's transcript is never returned, unless it was already."""
        self._opened.pop(ticket, None)
        for number in [number for number, (owner, _) in self._decoding.items() if owner == ticket]:
            del self._decoding[number]
            self._decoder.cancel(number)

    def poll(self) -> list[tuple[int, Transcript | CaspiError]]:
        """Works for a moment; returns the recordings that are done, with their tickets. If the engine itself fails, all
        recordings are forgotten."""
        results: list[tuple[int, Transcript | CaspiError]] = []
        try:
            ended = self._decoder.poll()
        except BaseException:
            self._opened.clear()
            self._decoding.clear()
            raise
        for number, result in ended:
            if (place := self._decoding.pop(number, None)) is None:
                continue  # of a recording that failed a moment ago
            ticket, window = place
            if isinstance(result, CaspiError):
                self.cancel(ticket)
                results.append((ticket, result))
                continue
            self._finish(ticket, window, result)
        self._show_partials()
        changed, self._changed = self._changed, set()
        for ticket in sorted(changed):
            if ticket in self._opened and self._opened[ticket].complete:
                opened = self._opened.pop(ticket)
                assert opened.seconds is not None  # it is complete
                results.append((ticket, joined_transcript(opened.heard, opened.seconds, opened.options.language)))
        return results

    def _show_partials(self) -> None:
        if (now := time.monotonic()) < self._partials_at + _PARTIAL_SECONDS:
            return
        self._partials_at = now
        for opened in self._opened.values():
            if opened.on_partial and (number := opened.running.get(len(opened.heard))) is not None:
                text = without_times(self._decoder.text_so_far(number))
                if text and text != opened.shown:
                    opened.shown = text
                    opened.on_partial(text)

    def _submit_waiting(self, ticket: int, opened: _Open) -> None:
        """Submits the windows that are there; only the next one if it waits for the text before it."""
        asked = opened.options
        while opened.waiting and not (asked.decoding.previous_text and opened.running):
            number, window = opened.waiting.popleft()
            opened.windows[number] = window
            if is_silent(window.samples):
                self._finish(ticket, number, Hypothesis("", None, truncated=False, silent=True), ran=False)
                continue
            context = joined(asked.context, tail(opened.previous))
            clip = DecodeRequest(
                window.samples,
                timestamp_prompt(context) if asked.times else context,
                asked.language,
                prefix="" if number else asked.prefix,
            )
            opened.running[number] = self._decoder.submit(clip, asked.decoding)
            self._decoding[opened.running[number]] = (ticket, number)

    def _finish(self, ticket: int, number: int, hypothesis: Hypothesis, *, ran: bool = True) -> None:
        """The final hypothesis of a window. The next window is not given a text that is not to be trusted."""
        opened = self._opened[ticket]
        heard = heard_window(ticket, opened.windows.pop(number), hypothesis, times=opened.options.times)
        opened.order.put(number, heard)
        if ran:
            del opened.running[number]
            if opened.options.decoding.previous_text:
                untrusted = hypothesis.truncated or loops_in(hypothesis)
                opened.previous = "" if untrusted else without_times(hypothesis.text)
            self._submit_waiting(ticket, opened)
        self._tell(ticket, opened)

    def _tell(self, ticket: int, opened: _Open) -> None:
        """Gives the windows that are next to who waits for them."""
        for heard in opened.order.take():
            if opened.on_window:
                opened.on_window(heard)
            opened.heard.append(replace(heard, window=replace(heard.window, samples=_NO_SAMPLES)))
        self._changed.add(ticket)


_MOST_WAITING = 64  # windows that wait for the text before them, of all recordings
_PARTIAL_SECONDS = 0.1  # between two looks at texts that are being written
_NO_SAMPLES = np.zeros(0, np.float32)
