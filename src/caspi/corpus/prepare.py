"""Sources to corpus: decode, cut, clean, filter, split, store. `process` is the whole of it for one recording."""

from __future__ import annotations

import functools
import itertools
import multiprocessing
import os
import shutil
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from caspi import audio, folders
from caspi.config import Config
from caspi.corpus.filters import Filters, Reason, reject
from caspi.corpus.segmentation import Segmentation, Span, spans
from caspi.corpus.sources import SourceConfig, recordings
from caspi.corpus.splits import Splits, split_of
from caspi.corpus.store import SplitWriter
from caspi.corpus.utterance import SPLITS, Recording, Split, Utterance, Word
from caspi.errors import UsageError
from caspi.language import TextPolicy, language
from caspi.progress import Progress

_EXAMPLES_PER_REASON = 5


class CorpusConfig(Config):
    """What `caspi prepare` does and where it puts it."""

    path: Path
    sources: tuple[SourceConfig, ...] = Field(min_length=1)
    segmentation: Segmentation = Segmentation()
    text: TextPolicy = TextPolicy()
    filters: Filters = Filters()
    splits: Splits = Splits()
    workers: int = Field(default_factory=lambda: os.cpu_count() or 1, ge=1)


@dataclass(frozen=True, slots=True)
class Kept:
    utterance: Utterance
    flac: bytes
    split: Split | None


@dataclass(frozen=True, slots=True)
class Rejected:
    id: str
    source: str
    reason: str
    detail: str


def process(recording: Recording, config: CorpusConfig) -> list[Kept | Rejected]:
    """Everything that happens to one recording; pure, so that any engine can run it anywhere."""
    try:
        samples, spoken_words = recording.audio.load()
    except audio.AudioError as error:
        return [Rejected(recording.id, recording.source, error.reason, str(error))]
    except (OSError, RuntimeError, ValueError) as error:
        return [Rejected(recording.id, recording.source, "corrupt_audio", f"{type(error).__name__}: {error}")]
    total = len(samples) / audio.SAMPLE_RATE
    pieces = list(_pieces(recording, total, spoken_words, config.segmentation))
    if not pieces:
        return [Rejected(recording.id, recording.source, "empty_text", "no segment")]
    names = [recording.id] if len(pieces) == 1 else [f"{recording.id}-{number:04d}" for number in range(len(pieces))]
    timed = bool(recording.segments)
    return [
        _outcome(recording, name, piece, samples, total, timed, config)
        for name, piece in zip(names, pieces, strict=True)
    ]


def _pieces(recording: Recording, total: float, words: tuple[Word, ...], policy: Segmentation) -> Iterator[Span]:
    if recording.segments:
        yield from spans(recording.segments, policy)
    else:
        end = total if recording.end is None else recording.end
        yield Span(recording.start, end, recording.text, words)


def _outcome(
    recording: Recording, name: str, piece: Span, samples: np.ndarray, total: float, timed: bool, config: CorpusConfig
) -> Kept | Rejected:
    def rejected(reason: Reason, detail: str) -> Rejected:
        return Rejected(name, recording.source, reason, detail)

    if not 0 <= piece.start < piece.end <= total + 0.1:
        return rejected("times_outside_audio", f"{piece.start:.2f}-{piece.end:.2f} s of {total:.2f} s")
    rules = language(recording.language)
    text = rules.training_text(piece.text, config.text)
    first, last = (round(t * audio.SAMPLE_RATE) for t in (piece.start, min(piece.end, total)))
    clip = samples[first:last]
    seconds = len(clip) / audio.SAMPLE_RATE
    reason = reject(clip, seconds, text, rules.script_share(text), config.filters)
    if reason == "too_long" and not timed:
        reason = "long_without_times"
    if reason:
        return rejected(reason, f"{seconds:.2f} s: {text[:80]}")
    words = tuple(
        Word(cleaned, max(0.0, word.start - piece.start), min(seconds, word.end - piece.start))
        for word in piece.words
        if (cleaned := rules.training_text(word.text, config.text))
    )
    utterance = Utterance(
        id=name,
        text=text,
        seconds=seconds,
        source=recording.source,
        group=recording.group,
        language=recording.language,
        context=rules.training_text(recording.context, config.text),
        words=words,
        synthetic=recording.synthetic,
    )
    return Kept(utterance, audio.encode_flac(clip), recording.split)


def prepare(config: CorpusConfig, spoken_language: str) -> dict[str, Any]:
    """Runs every recording through `process` and writes the corpus; returns what the report says of it.

    The folder appears whole or not at all. Raises UsageError where nothing is kept.
    """
    started = time.monotonic()
    partial = folders.start(config.path, "prepare")
    tally = _Tally()
    writers = {split: SplitWriter(partial, split) for split in SPLITS}
    with Progress("prepare", unit="h of audio") as progress:
        for found in _outcomes(recordings(config.sources, spoken_language), config):
            outcome = tally.unique(found)
            tally.add(outcome)
            if isinstance(outcome, Kept):
                split = outcome.split or split_of(outcome.utterance.group, config.splits)
                writers[split].add(outcome.utterance, outcome.flac)
                progress.advance(outcome.utterance.seconds / 3600)
    for writer in writers.values():
        writer.close()
    if not tally.kept:
        shutil.rmtree(partial)
        reasons = ", ".join(f"{reason} {count}" for reason, count in tally.rejected.most_common()) or "no input"
        raise UsageError(f"corpus {config.path} would be empty: {reasons}; check corpus.sources and corpus.filters")
    summary = tally.summary() | {
        "splits": {
            split: {"utterances": w.count, "hours": w.seconds / 3600, "fingerprint": w.fingerprint}
            for split, w in writers.items()
        },
        "seconds": time.monotonic() - started,
    }
    return summary | {"partial": partial}


def _outcomes(found: Iterable[Recording], config: CorpusConfig) -> Iterator[Kept | Rejected]:
    """Outcomes in the order of the input, whatever the number of workers."""
    if config.workers == 1:
        for recording in found:
            yield from process(recording, config)
        return
    work = functools.partial(process, config=config)
    at_once = 1 if any(source.kind == "manifest" for source in config.sources) else 16
    with multiprocessing.get_context("spawn").Pool(config.workers) as pool:
        # Drawn here, not by the pool's own thread: a source that raises there would hang the pool.
        waiting: deque[Any] = deque()
        for block in _blocks(found, at_once):
            waiting.append(pool.apply_async(_process_all, (work, block)))
            if len(waiting) > 4 * config.workers:
                yield from waiting.popleft().get()
        while waiting:
            yield from waiting.popleft().get()


def _blocks(found: Iterable[Recording], size: int) -> Iterator[list[Recording]]:
    """Long files one at a time, so that workers end together; short ones in handfuls, to spare messages."""
    iterator = iter(found)
    while block := list(itertools.islice(iterator, size)):
        yield block


def _process_all(work: Callable[[Recording], list[Kept | Rejected]], block: list[Recording]) -> list[Kept | Rejected]:
    return [outcome for recording in block for outcome in work(recording)]


class _Tally:
    """Counts, so that input == kept + rejected can be checked by whoever reads the report."""

    def __init__(self) -> None:
        self.kept = 0
        self.input = 0
        self.synthetic = 0
        self.hours: defaultdict[str, float] = defaultdict(float)
        self.rejected: Counter[str] = Counter()
        self.examples: defaultdict[str, list[dict[str, str]]] = defaultdict(list)
        self._ids: set[str] = set()
        self._groups: defaultdict[str, set[str]] = defaultdict(set)
        self._utterances: Counter[str] = Counter()

    def unique(self, outcome: Kept | Rejected) -> Kept | Rejected:
        """A kept utterance whose id was there before becomes a rejected one: ids are what results are joined by."""
        if isinstance(outcome, Kept):
            if outcome.utterance.id in self._ids:
                twice = outcome.utterance
                return Rejected(twice.id, twice.source, "duplicate_id", twice.text[:80])
            self._ids.add(outcome.utterance.id)
        return outcome

    def add(self, outcome: Kept | Rejected) -> None:
        self.input += 1
        if isinstance(outcome, Kept):
            self.kept += 1
            self._groups[outcome.utterance.source].add(outcome.utterance.group)
            self._utterances[outcome.utterance.source] += 1
            self.synthetic += outcome.utterance.synthetic
            self.hours[outcome.utterance.source] += outcome.utterance.seconds / 3600
            return
        self.rejected[outcome.reason] += 1
        if len(self.examples[outcome.reason]) < _EXAMPLES_PER_REASON:
            self.examples[outcome.reason].append({"id": outcome.id, "detail": outcome.detail})

    def summary(self) -> dict[str, Any]:
        return {
            "input": self.input,
            "kept": self.kept,
            "rejected": dict(sorted(self.rejected.items())),
            "synthetic": self.synthetic,
            "hours": sum(self.hours.values()),
            "hours_by_source": dict(self.hours),
            "rejected_examples": dict(self.examples),
            "warnings": [
                f"{source}: every utterance is its own group, so a speaker may stand in two splits; set group_key"
                for source, count in self._utterances.items()
                if count > 1 and len(self._groups[source]) == count
            ],
        }
