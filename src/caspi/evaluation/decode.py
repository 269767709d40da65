"""Decodes corpora with a model on all GPUs. No utterance is decoded twice."""

from __future__ import annotations

import functools
import hashlib
import json
import math
import multiprocessing
import queue
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from caspi.atomic_output import read_whole_lines
from caspi.audio import Seconds
from caspi.corpus.read_ahead import read_ahead
from caspi.corpus.store import Corpus
from caspi.corpus.utterance import Utterance
from caspi.errors import CaspiError
from caspi.evaluation.pairs import TranscriptPair
from caspi.evaluation.results import context_label
from caspi.evaluation.stress import CLEAN, apply_condition
from caspi.inference.decoding_options import GREEDY, DecodingOptions
from caspi.inference.transcriber import Recording, Transcriber
from caspi.inference.transcripts import Transcript
from caspi.progress import Progress
from caspi.reporting import report

_SAVE_SECONDS = 1.0  # between two writes: about the loss if the process is killed


@dataclass(frozen=True, slots=True)
class ModelHandle:
    """model: a folder or a Hub id; fingerprint: of all files that loading reads, as they may change under one name."""

    model: str
    fingerprint: str

    @functools.lru_cache(maxsize=1)  # noqa: B019 - one at a time, and small keys
    def on(self, device: str) -> Transcriber:
        """Loaded onto a device. Raises UsageError."""
        return Transcriber.of(self.model, device)


@dataclass(frozen=True, slots=True)
class DecodeJob:
    """Rows of a split to decode under one condition. identify: the model names the language.
    turns: the system turns, one per row. shown: the name of their content; "": the context of the corpus."""

    corpus: Corpus
    rows: range
    condition: str = CLEAN
    identify: bool = False
    decoding: DecodingOptions = GREEDY
    shown: str = ""
    turns: Sequence[str] = ()

    def key(self, recogniser: ModelHandle, corpus_fingerprint: str) -> str:
        """A name for the result, from everything that affects the result, including the decoding code."""
        code = (report.revision(), torch.__version__, torch.cuda.is_available())
        content = (
            recogniser.fingerprint,
            corpus_fingerprint,
            self.corpus.split,
            self.condition,
            self.identify,
            self.decoding,
            self.shown,
            code,
        )
        plain = re.sub(r"[^\w-]+", "-", f"{self.corpus.folder.name}-{self.corpus.split}-{self.shown or self.condition}")
        return f"{plain}-{hashlib.sha256(repr(content).encode()).hexdigest()[:16]}"


@dataclass(frozen=True, slots=True)
class DecodedUtterance:
    """The model's output for an utterance. probabilities: of the text's words. named_probability: of the language that
    the model identified. seconds: its share of the decoding time of its block."""

    id: str
    text: str
    truncated: bool
    retried: bool
    guarded: bool
    named: str
    probabilities: tuple[float, ...] = ()
    named_probability: float | None = None
    seconds: Seconds = 0.0


def devices() -> list[str]:
    """All GPUs, else the CPU."""
    return [f"cuda:{number}" for number in range(torch.cuda.device_count())] or ["cpu"]


def decode(model: ModelHandle, job: DecodeJob, file: Path, on: Sequence[str]) -> tuple[list[TranscriptPair], Seconds]:
    """Every utterance of a job with its hypothesis, and the decoding time. One line per utterance is written to the
    cache file as it is decoded; an utterance that already has a line there is not decoded again."""
    ids = job.corpus.column("id")
    decoded = {row["id"]: DecodedUtterance(**row) for row in read_whole_lines(file)}
    seconds_of = job.corpus.numbers("seconds")
    # Longest first: all devices, and all rows of a batch, finish at about the same time.
    todo = sorted((row for row in job.rows if ids[row] not in decoded), key=lambda row: -seconds_of[row])
    condition = context_label(job.shown) or ("" if job.condition == CLEAN else job.condition)
    what = f"evaluate, {condition}" if condition else "evaluate"
    before = time.monotonic()
    with file.open("a", encoding="utf-8") as lines, Progress(what, unit="utterances", total=len(todo)) as progress:
        for some in _decoded(model, job, todo, on):
            now = time.monotonic()
            for utterance in some:
                decoded[utterance.id] = replace(utterance, seconds=(now - before) / len(some))
                lines.write(json.dumps(asdict(decoded[utterance.id]), ensure_ascii=False) + "\n")
            lines.flush()
            before = now
            progress.advance(len(some))
    wanted = [decoded[ids[row]] for row in job.rows]
    pairs = [_pair(job.corpus.utterance(row), one, job) for row, one in zip(job.rows, wanted, strict=True)]
    return pairs, math.fsum(one.seconds for one in wanted)


def _decoded(
    model: ModelHandle, job: DecodeJob, rows: list[int], on: Sequence[str]
) -> Iterator[list[DecodedUtterance]]:
    """The utterances, a few at a time and in any order."""
    if not rows:
        return
    if len(on) == 1 or len(rows) < 2 * len(on):
        yield from _on_device(model, on[0], job, rows)
        return
    context = multiprocessing.get_context("spawn")
    results: Any = context.Queue()
    shares = [rows[number :: len(on)] for number in range(len(on))]
    workers = [
        context.Process(target=_work, args=(model, device, job, share, results), daemon=True)
        for device, share in zip(on, shares, strict=True)
    ]
    for worker in workers:
        worker.start()
    try:
        yield from _received(results, workers)
    finally:
        for worker in workers:
            worker.terminate()
            worker.join()


def _work(model: ModelHandle, device: str, job: DecodeJob, rows: list[int], results: Any) -> None:
    """The whole of a process for one device: sends lists of utterances, at last None or the error."""
    try:
        for some in _on_device(model, device, job, rows):
            results.put(some)
        results.put(None)
    except Exception as error:
        results.put(error)


def _received(results: Any, workers: Sequence[Any]) -> Iterator[list[DecodedUtterance]]:
    """What the processes send. Raises their error, and CaspiError if one of them died."""
    running = len(workers)
    while running:
        try:
            message = results.get(timeout=1.0)
        except queue.Empty:
            if dead := [worker.exitcode for worker in workers if worker.exitcode not in (None, 0)]:
                raise CaspiError(
                    f"a decoding process ended with exit code {dead[0]}; run the same command again to resume"
                ) from None
            continue
        if isinstance(message, Exception):
            raise message
        if message is None:
            running -= 1
        else:
            yield message


def _on_device(
    model: ModelHandle, device: str, job: DecodeJob, rows: Sequence[int]
) -> Iterator[list[DecodedUtterance]]:
    transcriber = model.on(device)
    recordings = read_ahead(functools.partial(_recording, job), rows)
    finished: list[DecodedUtterance] = []
    sent = time.monotonic()
    for number, transcript in transcriber.transcribe_each(recordings):
        utterance = job.corpus.utterance(rows[number])
        finished.append(_decoded_utterance(utterance.id, transcript, job.identify))
        if time.monotonic() - sent > _SAVE_SECONDS:
            yield finished
            finished, sent = [], time.monotonic()
    if finished:
        yield finished


_DIGITS = 5  # of a stored probability


def _decoded_utterance(identifier: str, transcript: Transcript, identify: bool) -> DecodedUtterance:
    words = [word for segment in transcript.segments for word in segment.words]
    named = transcript.language_probability
    return DecodedUtterance(
        id=identifier,
        text=transcript.text,
        truncated=transcript.truncated > 0,
        retried=transcript.retried > 0,
        guarded=transcript.guarded > 0,
        named=(transcript.language or "none") if identify else "",
        probabilities=tuple(round(word.probability, _DIGITS) for word in words if word.probability is not None),
        named_probability=round(named, _DIGITS) if identify and named is not None else None,
    )


def _recording(job: DecodeJob, row: int) -> Recording:
    utterance = job.corpus.utterance(row)
    spoken = None if job.identify else utterance.language
    context = job.turns[row] if job.shown else utterance.context
    return Recording(_samples(job, row, utterance), spoken, context, decoding=job.decoding)


def _samples(part: DecodeJob, row: int, utterance: Utterance) -> Any:
    samples = part.corpus.samples(row)
    if part.condition == CLEAN:
        return samples
    return apply_condition(part.condition, utterance.id, samples, lambda draw: _another(part.corpus, utterance, draw))


def _another(corpus: Corpus, utterance: Utterance, draw: Any) -> Any:
    """A clip of another speaker, or any clip if there is only one speaker."""
    for row in draw.integers(0, len(corpus), 20).tolist():
        if corpus.utterance(row).group != utterance.group:
            break
    return corpus.samples(row)


def _pair(utterance: Utterance, heard: DecodedUtterance, part: DecodeJob) -> TranscriptPair:
    signals = utterance.signals
    return TranscriptPair(
        id=utterance.id if part.condition == CLEAN else f"{utterance.id} ({part.condition})",
        reference=utterance.text,
        hypothesis=heard.text,
        seconds=utterance.seconds,
        source=utterance.source,
        group=utterance.group,
        language=utterance.language,
        named=heard.named,
        named_probability=heard.named_probability,
        probabilities=tuple(heard.probabilities),
        snr_db=signals.snr_db if signals else None,
        silence=signals.silence if signals else None,
        truncated=heard.truncated,
        retried=heard.retried,
        guarded=heard.guarded,
        synthetic=utterance.synthetic,
        condition=part.condition,
    )
