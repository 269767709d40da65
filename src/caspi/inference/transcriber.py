"""Transcribes audio of any length to text with times; used by evaluation, command line and server."""

from __future__ import annotations

import itertools
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from statistics import fmean

import numpy as np
import torch

from caspi.audio import SAMPLE_RATE, Seconds
from caspi.errors import CaspiError
from caspi.inference.decoding_options import GREEDY, DecodingOptions
from caspi.inference.engine.engine import Engine
from caspi.inference.engine.generator import GeneratorOptions
from caspi.inference.engine.requests import DecodeRequest, Hypothesis
from caspi.inference.engine.streaming import results_of
from caspi.inference.engine.words import RecognisedWord
from caspi.inference.long_audio import longest_window, windows
from caspi.inference.loops import loops
from caspi.model.hotwords import joined, tail
from caspi.model.loading import LoadedModel, load_to_decode
from caspi.model.timestamps import phrases, shift_times, timestamp_prompt, without_times


@dataclass(frozen=True, slots=True)
class TimedText:
    """Text of one window of a recording, or of one phrase if times were requested. words: of the text, in order."""

    start: Seconds
    end: Seconds
    text: str
    words: tuple[RecognisedWord, ...] = ()


@dataclass(frozen=True, slots=True)
class Transcript:
    """retried: windows that reached the token limit; truncated: those that reached it again after the split; looping:
    those whose text repeats itself; guarded: those that were decoded again because it did; silent: those without sound,
    which are not decoded; untimed: those whose phrases have no times, although they were requested; unaligned: those
    whose words have none, although an aligner was to find them.
    language_probability: mean over the windows in which the model identified this language; None if the language was
    given."""

    text: str
    segments: tuple[TimedText, ...]
    language: str | None
    seconds: Seconds
    truncated: int
    retried: int = 0
    untimed: int = 0
    looping: int = 0
    guarded: int = 0
    silent: int = 0
    language_probability: float | None = None
    unaligned: int = 0

    def warnings(self) -> list[str]:
        """Warnings about the transcript, one line each."""
        problems = (
            (self.truncated, "hit the limit of tokens, so text is missing"),
            (self.retried - self.truncated, "hit the limit of tokens and {was} decoded again in two halves"),
            (self.guarded, "repeated the same words over and over and {was} decoded again"),
            (self.looping, "repeat{s} the same words over and over"),
        )
        return [
            f"{count} window{'s' if count > 1 else ''} "
            + what.format(s="" if count > 1 else "s", was="were" if count > 1 else "was")
            for count, what in problems
            if count > 0
        ]


SILENT_DB = -60.0  # of full scale, for the loudest 32 ms; below it the clip is silent
_FRAME = 512  # samples, 32 ms
_SHORTEST = 0.1  # seconds: no word is shorter


def is_silent(samples: np.ndarray) -> bool:
    """Whether samples, float32 [n] at 16 kHz, are silent: no sound, or too short for a word."""
    if len(samples) < _SHORTEST * SAMPLE_RATE:
        return True
    frames = samples[: len(samples) // _FRAME * _FRAME].reshape(-1, _FRAME)
    return float(np.square(frames).mean(axis=1).max()) < 10 ** (SILENT_DB / 10)


@dataclass(frozen=True, slots=True)
class Recording:
    """What to transcribe: samples float32 [n] at 16 kHz, of any length. language: None: the model identifies it. times:
    of every phrase, for a model that was trained to output them."""

    samples: np.ndarray
    language: str | None = None
    context: str = ""
    times: bool = False
    decoding: DecodingOptions = GREEDY


@dataclass(slots=True)
class _Open:
    """A recording whose windows are being decoded. spans: of its windows, in samples. todo: windows that are not
    submitted yet. hypotheses: by window. halves: of windows that were split, by window."""

    recording: Recording
    spans: list[tuple[int, int]]
    todo: deque[int] = field(default_factory=deque)
    hypotheses: dict[int, Hypothesis] = field(default_factory=dict)
    halves: dict[int, list[Hypothesis | None]] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        return len(self.hypotheses) == len(self.spans)


@dataclass(frozen=True, slots=True)
class _Piece:
    """A clip that the engine decodes: a window of a recording, or one half of it."""

    ticket: int
    window: int
    clip: DecodeRequest
    half: int | None = None


class Transcriber:
    """Splits long audio into windows, decodes all windows of all recordings together, joins their texts with spaces.
    No window is longer than the clips that the model was trained on, if the model states their length."""

    def __init__(self, loaded: LoadedModel, *, dtype: torch.dtype | None = None, engine: Engine | None = None) -> None:
        """dtype: of the computation; None: that of the weights."""
        self._engine = engine or Engine(loaded, dtype=dtype)
        self._max_window = longest_window(loaded.model.config.to_dict())
        self._tickets = itertools.count()
        self._opened: dict[int, _Open] = {}
        self._pieces: dict[int, _Piece] = {}  # by the engine's tickets
        self._silent: list[int] = []  # done without the engine

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
        """Whether more recordings would keep the device busy."""
        return self._engine.wants_more

    @property
    def pending(self) -> bool:
        """Whether any recording has no transcript yet."""
        return bool(self._opened or self._silent)

    def submit(self, recording: Recording) -> int:
        """Returns a ticket. Raises UsageError if the recording cannot be transcribed."""
        ticket = next(self._tickets)
        opened = self._opened[ticket] = _Open(recording, windows(recording.samples, self._max_window))
        for window, (first, last) in enumerate(opened.spans):
            if is_silent(recording.samples[first:last]):
                opened.hypotheses[window] = Hypothesis("", None, truncated=False, silent=True)
            else:
                opened.todo.append(window)
        try:
            self._submit_windows(ticket, opened)
        except BaseException:
            self.cancel(ticket)
            raise
        if opened.complete:
            self._silent.append(ticket)
        return ticket

    def cancel(self, ticket: int) -> None:
        """The recording's transcript is never returned, unless it was already."""
        self._opened.pop(ticket, None)
        for number in [number for number, piece in self._pieces.items() if piece.ticket == ticket]:
            del self._pieces[number]
            self._engine.cancel(number)

    def poll(self) -> list[tuple[int, Transcript | CaspiError]]:
        """Works for a moment; returns the recordings that are done, with their tickets. If the engine itself fails, all
        recordings are forgotten."""
        silent, self._silent = self._silent, []
        results: list[tuple[int, Transcript | CaspiError]] = [
            (ticket, _join(self._opened.pop(ticket))) for ticket in silent if ticket in self._opened
        ]
        try:
            ended = self._engine.poll()
        except BaseException:
            self._opened.clear()
            self._pieces.clear()
            raise
        for number, result in ended:
            if (piece := self._pieces.pop(number, None)) is None:
                continue  # of a recording that failed a moment ago
            if isinstance(result, CaspiError):
                self.cancel(piece.ticket)
                results.append((piece.ticket, result))
                continue
            opened = self._opened[piece.ticket]
            self._place(opened, piece, result)
            if opened.complete:
                results.append((piece.ticket, _join(self._opened.pop(piece.ticket))))
        return results

    def _decode(self, piece: _Piece) -> None:
        self._pieces[self._engine.submit(piece.clip)] = piece

    def _submit_windows(self, ticket: int, opened: _Open, previous: str = "") -> None:
        """Submits the windows that are left; only the next one if it waits for the previous text."""
        recording = opened.recording
        context = joined(recording.context, tail(previous))
        context = timestamp_prompt(context) if recording.times else context
        while opened.todo:
            window = opened.todo.popleft()
            first, last = opened.spans[window]
            clip = DecodeRequest(
                recording.samples[first:last], context, recording.language, beams=recording.decoding.beams
            )
            self._decode(_Piece(ticket, window, clip))
            if recording.decoding.previous_text:
                return

    def _place(self, opened: _Open, piece: _Piece, hypothesis: Hypothesis) -> None:
        """Stores a hypothesis. A window that repeats itself is decoded again with that forbidden, if there is a guard;
        a window that reaches its token limit is split in two and decoded again once."""
        if opened.recording.decoding.loop_guard and not piece.clip.no_loops and _loops(hypothesis):
            self._decode(replace(piece, clip=replace(piece.clip, no_loops=True)))
            return
        if piece.half is None:
            if not hypothesis.truncated or piece.clip.seconds <= _SHORTEST_SPLIT:
                self._finish(opened, piece, replace(hypothesis, guarded=piece.clip.no_loops))
                return
            opened.halves[piece.window] = [None, None]
            for half, clip in enumerate(_halves(piece.clip)):
                self._decode(_Piece(piece.ticket, piece.window, clip, half))
            return
        halves = opened.halves[piece.window]
        halves[piece.half] = replace(hypothesis, guarded=piece.clip.no_loops)
        first, second = halves
        if first is not None and second is not None:
            window = slice(*opened.spans[piece.window])
            cut = _middle(opened.recording.samples[window])
            text = " ".join(part for part in (first.text, shift_times(second.text, cut / SAMPLE_RATE)) if part)
            hypothesis = Hypothesis(
                text, first.language or second.language, first.truncated or second.truncated, retried=True,
                tokens=first.tokens + second.tokens,
                log_probabilities=first.log_probabilities + second.log_probabilities,
                words=first.words + second.words, language_probability=first.language_probability,
                guarded=first.guarded or second.guarded,
            )  # fmt: skip
            self._finish(opened, piece, hypothesis)

    def _finish(self, opened: _Open, piece: _Piece, hypothesis: Hypothesis) -> None:
        """The final hypothesis of a window. The next window is not given a text that is not to be trusted."""
        opened.hypotheses[piece.window] = hypothesis
        untrusted = hypothesis.truncated or _loops(hypothesis)
        self._submit_windows(piece.ticket, opened, "" if untrusted else without_times(hypothesis.text))


_SHORTEST_SPLIT = 2.0  # seconds


def _middle(samples: np.ndarray) -> int:
    """The sample where a window is split."""
    return windows(samples, len(samples) / SAMPLE_RATE * 0.75)[0][1]


def _halves(clip: DecodeRequest) -> list[DecodeRequest]:
    cut = _middle(clip.samples)
    return [replace(clip, samples=clip.samples[:cut]), replace(clip, samples=clip.samples[cut:])]


def _join(opened: _Open) -> Transcript:
    samples, times = opened.recording.samples, opened.recording.times
    hypotheses = [opened.hypotheses[window] for window in range(len(opened.spans))]
    segments: list[TimedText] = []
    untimed = 0
    for (first, last), hypothesis in zip(opened.spans, hypotheses, strict=True):
        start, end = first / SAMPLE_RATE, last / SAMPLE_RATE
        timed_phrases = phrases(hypothesis.text, end - start) if times else []
        words = iter(hypothesis.words)
        segments += [
            TimedText(
                start + phrase.start, start + phrase.end, phrase.text, tuple(islice(words, len(phrase.text.split())))
            )
            for phrase in timed_phrases
        ]  # fmt: skip
        text = without_times(hypothesis.text).strip() if times else hypothesis.text
        if text and not timed_phrases:
            segments.append(TimedText(start, end, text, hypothesis.words))
            untimed += times
    languages = [hypothesis.language for hypothesis in hypotheses if hypothesis.language]
    language = Counter(languages).most_common(1)[0][0] if languages else None
    return Transcript(
        text=" ".join(segment.text for segment in segments),
        segments=tuple(segments),
        language=language,
        seconds=len(samples) / SAMPLE_RATE,
        truncated=sum(hypothesis.truncated for hypothesis in hypotheses),
        retried=sum(hypothesis.retried for hypothesis in hypotheses),
        untimed=untimed,
        looping=sum(_loops(hypothesis) for hypothesis in hypotheses),
        guarded=sum(hypothesis.guarded for hypothesis in hypotheses),
        silent=sum(hypothesis.silent for hypothesis in hypotheses),
        language_probability=_language_probability([h for h in hypotheses if h.language == language]),
    )


def _loops(hypothesis: Hypothesis) -> bool:
    return loops(without_times(hypothesis.text))


def _language_probability(hypotheses: Sequence[Hypothesis]) -> float | None:
    given = [h.language_probability for h in hypotheses if h.language_probability is not None]
    return fmean(given) if given else None
