"""Decodes windows, each as often as it takes: again where the text repeats itself, in halves where it is cut off, and
at higher temperatures where it is unlikely."""

from __future__ import annotations

import itertools
import zlib
from dataclasses import dataclass, field, replace
from statistics import fmean

from caspi.audio import SAMPLE_RATE, Seconds
from caspi.errors import CaspiError
from caspi.inference.decoding_options import DecodingOptions
from caspi.inference.engine.engine import Engine
from caspi.inference.engine.requests import DecodeRequest, Hypothesis, Sampling
from caspi.inference.long_audio import windows
from caspi.inference.loops import loops
from caspi.model.timestamps import shift_times, without_times

# Above and below these a text is decoded again at the next temperature (arXiv:2212.04356).
MOST_COMPRESSED = 2.4
LEAST_LIKELY = -1.0
_SHORTEST_SPLIT = 2.0  # seconds


def compression_ratio(text: str) -> float:
    """Bytes of a text for every byte of it compressed, as Whisper's: high if it repeats itself; 0 without text. Hebrew
    has two bytes for a letter, of which one says nothing: 2.3 to 4.4 for half a minute of right text."""
    data = text.encode()
    return len(data) / len(zlib.compress(data)) if data else 0.0


def repetition(text: str) -> float:
    """The same with one byte for every letter, so that it means the same in all scripts."""
    numbers: dict[str, int] = {}
    return compression_ratio("".join(chr(numbers.setdefault(letter, len(numbers)) % 128) for letter in text))


def mean_log_probability(hypothesis: Hypothesis) -> float | None:
    """Of its tokens; None if it has none."""
    return fmean(hypothesis.log_probabilities) if hypothesis.log_probabilities else None


def loops_in(hypothesis: Hypothesis) -> bool:
    return loops(without_times(hypothesis.text))


@dataclass(frozen=True, slots=True)
class _Piece:
    """A clip in the engine: a window, or one half of it. attempt: number of its temperature."""

    ticket: int
    clip: DecodeRequest
    options: DecodingOptions
    half: int | None = None
    attempt: int = 0


@dataclass(slots=True)
class _Halves:
    """The hypotheses of a window that was split after `cut` seconds."""

    cut: Seconds
    found: dict[int, Hypothesis] = field(default_factory=dict)


class WindowDecoder:
    """Submit windows, poll for their hypotheses. For one thread."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._tickets = itertools.count()
        self._pieces: dict[int, _Piece] = {}  # by the engine's tickets
        self._halves: dict[int, _Halves] = {}  # by our tickets

    @property
    def wants_more(self) -> bool:
        """Whether more windows would keep the device busy."""
        return self._engine.wants_more

    def submit(self, clip: DecodeRequest, options: DecodingOptions) -> int:
        """Returns a ticket. Raises UsageError if the window cannot be decoded."""
        ticket = next(self._tickets)
        self._decode(_Piece(ticket, _at(clip, options, 0), options))
        return ticket

    def cancel(self, ticket: int) -> None:
        """The window's hypothesis is never returned, unless it was already."""
        self._halves.pop(ticket, None)
        for number in [number for number, piece in self._pieces.items() if piece.ticket == ticket]:
            del self._pieces[number]
            self._engine.cancel(number)

    def text_so_far(self, ticket: int) -> str:
        """Of a window that is decoded for the first time, whole."""
        for number, piece in self._pieces.items():
            if piece.ticket == ticket and piece.half is None and not piece.attempt and not piece.clip.no_loops:
                return self._engine.text_so_far(number)
        return ""

    def poll(self) -> list[tuple[int, Hypothesis | CaspiError]]:
        """Works for a moment; returns the windows that are done, with their tickets. If the engine itself fails, all
        windows are forgotten."""
        try:
            ended = self._engine.poll()
        except BaseException:
            self._pieces.clear()
            self._halves.clear()
            raise
        results: list[tuple[int, Hypothesis | CaspiError]] = []
        for number, result in ended:
            if (piece := self._pieces.pop(number, None)) is None:
                continue  # of a window that failed a moment ago
            if isinstance(result, CaspiError):
                self.cancel(piece.ticket)
                results.append((piece.ticket, result))
            elif (final := self._place(piece, result)) is not None:
                results.append((piece.ticket, final))
        return results

    def _decode(self, piece: _Piece) -> None:
        self._pieces[self._engine.submit(piece.clip)] = piece

    def _place(self, piece: _Piece, hypothesis: Hypothesis) -> Hypothesis | None:
        """The hypothesis of the window, if it is complete; otherwise something is decoded again."""
        options = piece.options
        if options.loop_guard and not piece.clip.no_loops and loops_in(hypothesis):
            self._decode(replace(piece, clip=replace(piece.clip, no_loops=True, sampling=None)))
            return None
        if piece.attempt + 1 < len(options.temperatures) and _is_unlikely(hypothesis):
            following = piece.attempt + 1
            self._decode(replace(piece, clip=_at(piece.clip, options, following), attempt=following))
            return None
        hypothesis = replace(
            hypothesis, guarded=piece.clip.no_loops, temperature=options.temperatures[piece.attempt]
        )  # fmt: skip
        if piece.half is not None:
            return self._join_halves(piece, hypothesis)
        if not hypothesis.truncated or piece.clip.seconds <= _SHORTEST_SPLIT:
            return hypothesis
        samples = piece.clip.samples
        cut = windows(samples, len(samples) / SAMPLE_RATE * 0.75)[0][1]
        self._halves[piece.ticket] = _Halves(cut / SAMPLE_RATE)
        for half, part in enumerate((samples[:cut], samples[cut:])):
            prefix = "" if half else piece.clip.prefix
            self._decode(replace(piece, clip=replace(piece.clip, samples=part, prefix=prefix), half=half))
        return None

    def _join_halves(self, piece: _Piece, hypothesis: Hypothesis) -> Hypothesis | None:
        assert piece.half is not None
        halves = self._halves[piece.ticket]
        halves.found[piece.half] = hypothesis
        if len(halves.found) < 2:
            return None
        del self._halves[piece.ticket]
        return _joined(halves.found[0], halves.found[1], halves.cut)


def _at(clip: DecodeRequest, options: DecodingOptions, attempt: int) -> DecodeRequest:
    """The clip at one of the temperatures. Above 0 tokens are drawn, and nothing is searched."""
    temperature = options.temperatures[attempt]
    if temperature == 0:
        return replace(clip, beams=options.beams, sampling=None)
    return replace(clip, beams=1, no_loops=False, sampling=Sampling(temperature, seed=attempt))


def _is_unlikely(hypothesis: Hypothesis) -> bool:
    mean = mean_log_probability(hypothesis)
    return repetition(without_times(hypothesis.text)) > MOST_COMPRESSED or (mean is not None and mean < LEAST_LIKELY)


def _joined(first: Hypothesis, second: Hypothesis, cut: Seconds) -> Hypothesis:
    """Of the halves of a window; the second begins after `cut` seconds."""
    return Hypothesis(
        " ".join(part for part in (first.text, shift_times(second.text, cut)) if part),
        first.language or second.language, first.truncated or second.truncated, retried=True,
        tokens=first.tokens + second.tokens, log_probabilities=first.log_probabilities + second.log_probabilities,
        text_start=first.text_start,
        words=first.words + second.words, language_probability=first.language_probability,
        guarded=first.guarded or second.guarded, temperature=max(first.temperature, second.temperature),
    )  # fmt: skip
