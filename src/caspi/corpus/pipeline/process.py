"""Processes one recording: decodes it as a stream, then cuts, cleans, measures, filters and encodes its utterances.

A pure function, so that any engine can run it anywhere. Only one utterance at a time is in memory.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from caspi import audio
from caspi.audio import SAMPLE_RATE, AudioError, Stream
from caspi.config import Config
from caspi.corpus.dedup import acoustic_fingerprint
from caspi.corpus.pipeline.filters import ClipLengths, Filters, Reason, reject
from caspi.corpus.pipeline.segmentation import Segmentation, Span, spans
from caspi.corpus.signals import FRAME, measure_signals, spectrogram
from caspi.corpus.utterance import Recording, Split, Utterance, Word
from caspi.language import TextPolicy, language, lookalikes
from caspi.language.base import Language

_WHOLE = 0.9  # share of the declared length below which audio counts as truncated
_FULL_SCALE = 1.5  # higher peaks are not caused by resampling at full level: the file is louder than PCM can store


class Rules(Config):
    """Settings that determine how a recording becomes utterances; the same rules and input give the same bytes."""

    segmentation: Segmentation = Segmentation()
    """How long recordings are cut into utterances."""
    text: TextPolicy = TextPolicy()
    """How transcripts are cleaned."""
    filters: Filters = Filters()
    """Which utterances are kept."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """An utterance that passed every filter that checks single utterances.

    exact, words: its fingerprints; shifted: those of its audio half a frame later, to find copies with other cuts.
    notes: warnings about it, although it is kept.
    """

    utterance: Utterance
    flac: bytes = field(repr=False)
    split: Split | None
    exact: bytes
    words: np.ndarray = field(repr=False)
    shifted: np.ndarray = field(repr=False)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Rejected:
    id: str
    source: str
    reason: Reason
    detail: str


def process(recording: Recording, rules: Rules) -> Iterator[Accepted | Rejected]:
    """Every utterance of a recording, kept or rejected, in order; at least one outcome."""
    if recording.problem:
        yield Rejected(recording.id, recording.source, recording.problem_is, recording.problem)
        return
    try:
        stream, spoken = recording.audio.open()
    except AudioError as error:
        yield Rejected(recording.id, recording.source, _reason(error), str(error))
        return
    if recording.segments:
        pieces = list(spans(recording.segments, rules.segmentation))
    else:
        pieces = [Span(recording.start, recording.end, recording.text, spoken)]
    names = [recording.id] if len(pieces) == 1 else [f"{recording.id}-{n:04d}" for n in range(len(pieces))]
    names = [piece.id or name for piece, name in zip(pieces, names, strict=True)]
    # One second more than may be kept is enough to see that a clip is too long.
    limit = rules.filters.max_seconds + 1.0
    bounds = [(piece.start, min(piece.start + limit, piece.end or float("inf"))) for piece in pieces]
    previous = recording.previous
    maker = _Maker(recording, stream, rules, language(recording.language), limit)
    samples_of = clips(stream, bounds)
    for number, (name, piece) in enumerate(zip(names, pieces, strict=True)):
        try:
            samples = next(samples_of)
        except AudioError as error:
            rest = names[number:]
            yield from (Rejected(name, recording.source, _reason(error), str(error)) for name in rest)
            return
        outcome = maker.outcome(name, piece, samples, previous)
        yield outcome
        previous = outcome.utterance.text if isinstance(outcome, Accepted) else ""


def _reason(error: AudioError) -> Reason:
    return error.reason  # type: ignore[return-value]  # a test checks that Reason includes all reasons of caspi.audio


def clips(stream: Stream, bounds: Sequence[tuple[float, float]]) -> Iterator[np.ndarray]:
    """Samples of every (start, end) in seconds, ordered by start; shorter or empty if the audio ends earlier."""
    held, offset = np.zeros(0, np.float32), 0
    blocks = stream.blocks
    for start, end in bounds:
        first, last = round(start * SAMPLE_RATE), round(end * SAMPLE_RATE)
        waiting = [held[max(0, first - offset) :]]
        read = offset + len(held)
        offset = max(offset, min(first, read))
        while read < last and (block := next(blocks, None)) is not None:
            read += len(block)
            if read > first:
                waiting.append(block)
            else:
                offset = read  # earlier samples are not needed
        held = np.concatenate(waiting) if len(waiting) > 1 else waiting[0]
        yield held[max(0, first - offset) : max(0, last - offset)]


@dataclass(frozen=True, slots=True)
class _Maker:
    """Makes the outcomes of the pieces of one recording."""

    recording: Recording
    stream: Stream
    rules: Rules
    language: Language
    limit: float

    def outcome(self, name: str, piece: Span, samples: np.ndarray, previous: str) -> Accepted | Rejected:
        if piece.problem:
            return Rejected(name, self.recording.source, "not_aligned", f"{piece.problem}: {piece.text[:80]}")
        samples = self._without_padding(samples)
        seconds = len(samples) / SAMPLE_RATE
        if reason := self._misplaced(piece, seconds):
            end = "the end" if piece.end is None else f"{piece.end:.2f} s"
            found = f"{piece.start:.2f} s to {end}: {seconds:.2f} s of audio there"
            return Rejected(name, self.recording.source, reason, found)
        if any(start < piece.start + seconds and end > piece.start for start, end in self._lost()):
            return Rejected(name, self.recording.source, "damaged_audio", "audio inside it is lost")
        text = self._clean(piece.text)
        samples, notes = _at_full_scale(samples)
        notes += self._notes(piece, seconds)
        pcm = audio.pcm16(samples)
        power = spectrogram(samples)
        heard = ClipLengths(
            seconds, text, self.language.script_share(text), measure_signals(samples, power), self.recording.quality
        )
        rejected = self._rejection_reason(piece.text, text) or reject(heard, self.rules.filters)
        if rejected == "too_long" and not piece.words and not piece.phrases:
            rejected = "long_without_times"
        if rejected:
            return Rejected(name, self.recording.source, rejected, f"{seconds:.2f} s: {text[:80] or piece.text[:80]}")
        utterance = Utterance(
            id=name,
            text=text,
            seconds=seconds,
            source=self.recording.source,
            group=self.recording.group,
            language=self.recording.language,
            context=self._clean(self.recording.context),
            previous=self._clean(previous),
            words=_moved(timed(self._cleaned(piece.words), text), piece.start, seconds),
            segments=_moved(self._cleaned(piece.phrases), piece.start, seconds),
            synthetic=self.recording.synthetic,
            quality=self.recording.quality,
            labelled=self.recording.labelled,
            sample_rate=self.stream.sample_rate,
            channels=self.stream.channels,
            dead_channel=self.stream.findings.dead_channel,
            signals=heard.signals,
        )
        return Accepted(
            utterance,
            audio.encode_flac(pcm),
            "train" if self.recording.labelled else self.recording.split,
            acoustic_fingerprint.exact(pcm),
            acoustic_fingerprint.words(power),
            acoustic_fingerprint.words(spectrogram(samples[FRAME // 2 :])),
            tuple(notes),
        )

    def _lost(self) -> Sequence[tuple[float, float]]:
        return self.stream.findings.gaps if self.stream.findings.damaged else ()

    def _notes(self, piece: Span, seconds: float) -> list[str]:
        """Warnings about the file, as far as it was read, and about the text."""
        is_whole = piece.end is None and seconds < self.rules.filters.max_seconds
        notes: list[str] = [*self.stream.findings.notes(self.stream.declared if is_whole else None)]
        if self.rules.text.niqqud == "strip" and self.language.loses_points(piece.text):
            notes.append("pointed")
        return notes

    def _rejection_reason(self, written: str, cleaned: str) -> Reason | None:
        """A lookalike (Yiddish) is found whatever language a source calls it."""
        for other in lookalikes():
            if self.recording.language == other.name or other.recognises(written):
                return other.reason
        return self.language.rejection_reason(cleaned, self.rules.text)

    def _clean(self, text: str) -> str:
        return self.language.training_text(text, self.rules.text) if text else ""

    def _cleaned(self, words: Sequence[Word]) -> list[Word]:
        """The cleaned words, without those that become empty."""
        return [Word(text, word.start, word.end) for word in words if (text := self._clean(word.text))]

    def _without_padding(self, samples: np.ndarray) -> np.ndarray:
        """Removes codec padding: a slice of exactly the maximum length is decoded slightly longer than it was."""
        longest = round(self.rules.filters.max_seconds * SAMPLE_RATE)
        return samples[:longest] if len(samples) <= longest + audio.SLACK * SAMPLE_RATE else samples

    def _misplaced(self, piece: Span, seconds: float) -> Reason | None:
        """The reason, if the piece's times are outside the audio, or a whole file is shorter than it declares."""
        if piece.end is None:
            declared = self.stream.declared
            ends_early = seconds < self.rules.filters.max_seconds and declared is not None
            if ends_early and piece.start + seconds < _WHOLE * (declared or 0.0) - audio.SLACK:
                return "truncated_audio"
            return None if seconds > 0 else "times_outside_audio"
        if piece.end <= piece.start or seconds < min(piece.end - piece.start, self.limit) - audio.SLACK:
            return "times_outside_audio"
        return None


def _at_full_scale(samples: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Scales samples to the 16-bit range: a float file may be louder, and loses nothing if it is attenuated."""
    peak = float(np.abs(samples).max(initial=0.0))
    if peak > _FULL_SCALE:
        return samples / np.float32(peak), ["above_full_scale"]
    return np.clip(samples, -1, 1) if peak > 1 else samples, []


def timed(words: Sequence[Word], text: str) -> tuple[Word, ...]:
    """Word times for a cleaned text, from the words that were timed before cleaning.

    Words that cleaning changed together (a number spelled out, a noise of two words) share the original time in
    proportion to their letters. Empty if the text has words without times.
    """
    before = [part for word in words for part in _spread(word.text.split(), word.start, word.end)]
    after = text.split()
    if [word.text for word in before] == after:
        return tuple(before)
    found: list[Word] = []
    matcher = difflib.SequenceMatcher(None, [word.text for word in before], after, autojunk=False)
    for what, first, last, start, stop in matcher.get_opcodes():
        if what == "insert":
            return ()
        if what == "equal":
            found += before[first:last]
        elif what == "replace":
            found += _spread(after[start:stop], before[first].start, before[last - 1].end)
    return tuple(found)


def _spread(texts: Sequence[str], start: float, end: float) -> list[Word]:
    """Distributes texts over a time span, in proportion to their letters."""
    ends = np.cumsum([len(text) for text in texts]) * ((end - start) / max(1, sum(map(len, texts)))) + start
    starts = [start, *ends[:-1].tolist()]
    return [Word(text, first, min(last, end)) for text, first, last in zip(texts, starts, ends.tolist(), strict=True)]


def _moved(words: Sequence[Word], start: float, seconds: float) -> tuple[Word, ...]:
    """Word times relative to the start of the utterance, clipped to it."""
    return tuple(
        Word(word.text, min(max(0.0, word.start - start), seconds), min(max(0.0, word.end - start), seconds))
        for word in words
    )
