"""Decodes corpora with a model on all GPUs. No utterance is decoded twice."""

from __future__ import annotations

import functools
import hashlib
import json
import math
import multiprocessing
import re
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from caspi.atomic_output import read_jsonl
from caspi.audio import Seconds
from caspi.corpus.store import Corpus
from caspi.corpus.utterance import Utterance
from caspi.evaluation.pairs import TranscriptPair
from caspi.evaluation.stress import CLEAN, apply_condition
from caspi.inference.transcriber import Transcriber
from caspi.progress import Progress
from caspi.reporting import report

_AT_ONCE = 64  # utterances that are decoded and then saved together
_TURNS = 4  # minimum number of blocks per device, if there are several devices
# The files of a model folder that loading reads.
_READ = ("model*.safetensors*", "*config.json", "tokenizer*", "vocab*", "merges*", "*tokens*.json", "chat_template*")


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
            self.shown,
            code,
        )
        plain = re.sub(r"[^\w-]+", "-", f"{self.corpus.folder.name}-{self.corpus.split}-{self.shown or self.condition}")
        return f"{plain}-{hashlib.sha256(repr(content).encode()).hexdigest()[:16]}"


@dataclass(frozen=True, slots=True)
class DecodedUtterance:
    """The model's output for an utterance. seconds: its share of the decoding time of its block."""

    id: str
    text: str
    truncated: bool
    retried: bool
    named: str
    seconds: Seconds = 0.0


def model_fingerprint(model: Path) -> str:
    """SHA-256 of a model folder's weights, configuration, tokenizer and processor."""
    files = sorted({path for pattern in _READ for path in model.glob(pattern) if path.is_file()})
    listing = "".join(f"{path.name} {report.fingerprint(path)}\n" for path in files)
    return hashlib.sha256(listing.encode()).hexdigest()


def devices() -> list[str]:
    """All GPUs, else the CPU."""
    return [f"cuda:{number}" for number in range(torch.cuda.device_count())] or ["cpu"]


def decode(
    recogniser: ModelHandle, part: DecodeJob, kept: Path, on: Sequence[str]
) -> tuple[list[TranscriptPair], float]:
    """Every utterance of a job with its hypothesis, and the decoding time in seconds. One line per utterance is written
    to the file `kept` as it is decoded; an utterance that already has a line there is not decoded again."""
    ids = part.corpus.column("id")
    heard = {row["id"]: DecodedUtterance(**row) for row in _whole_lines(kept)}
    seconds_of = part.corpus.numbers("seconds")
    # Longest first: the clips of a block have similar lengths, and all devices finish at about the same time.
    todo = sorted((row for row in part.rows if ids[row] not in heard), key=lambda row: -seconds_of[row])
    size = _AT_ONCE if len(on) == 1 else max(1, min(_AT_ONCE, math.ceil(len(todo) / (_TURNS * len(on)))))
    blocks = [todo[start : start + size] for start in range(0, len(todo), size)]
    how = part.shown or ("" if part.condition == CLEAN else part.condition)
    what = f"evaluate, {how}" if how else "evaluate"
    with kept.open("a", encoding="utf-8") as file, Progress(what, unit="utterances", total=len(todo)) as progress:
        for found, seconds in _decoded(recogniser, part, blocks, on):
            for one in found:
                heard[one.id] = replace(one, seconds=seconds / len(found))
                file.write(json.dumps(asdict(heard[one.id]), ensure_ascii=False) + "\n")
            file.flush()
            progress.advance(len(found))
    asked = [heard[ids[row]] for row in part.rows]
    pairs = [_pair(part.corpus.utterance(row), one, part) for row, one in zip(part.rows, asked, strict=True)]
    return pairs, math.fsum(one.seconds for one in asked)


def _whole_lines(path: Path) -> list[dict[str, Any]]:
    """The complete lines of the file. A truncated last line is dropped, and removed from the file too."""
    if not path.is_file():
        return []
    data = path.read_bytes()
    if not data.endswith(b"\n"):
        path.write_bytes(data[: data.rfind(b"\n") + 1])
    return read_jsonl(path)


def _decoded(
    recogniser: ModelHandle, part: DecodeJob, blocks: list[list[int]], on: Sequence[str]
) -> Iterator[tuple[list[DecodedUtterance], float]]:
    """The decoded blocks, in any order, with the wall-clock seconds that each took."""
    if len(on) == 1 or len(blocks) < 2:
        for block in blocks:
            yield _block(recogniser, on[0], part, block)
        return
    context = multiprocessing.get_context("spawn")
    pools = [ProcessPoolExecutor(1, context) for _ in on]
    try:
        waiting = [
            pools[number % len(on)].submit(_block, recogniser, on[number % len(on)], part, block)
            for number, block in enumerate(blocks)
        ]
        before = time.monotonic()
        for done in as_completed(waiting):
            found, _ = done.result()
            now = time.monotonic()
            yield found, now - before
            before = now
    finally:
        for pool in pools:
            pool.shutdown(cancel_futures=True)


def _block(
    recogniser: ModelHandle, device: str, part: DecodeJob, rows: Sequence[int]
) -> tuple[list[DecodedUtterance], float]:
    transcriber = recogniser.on(device)
    utterances = [part.corpus.utterance(row) for row in rows]
    started = time.monotonic()
    said = transcriber.transcribe(
        [_samples(part, row, utterance) for row, utterance in zip(rows, utterances, strict=True)],
        languages=[None if part.identify else utterance.language for utterance in utterances],
        contexts=[part.turns[row] for row in rows] if part.shown else [utterance.context for utterance in utterances],
    )
    seconds = time.monotonic() - started
    named = [one.language or "none" if part.identify else "" for one in said]
    return [
        DecodedUtterance(u.id, t.text, t.truncated > 0, t.retried > 0, name)
        for u, t, name in zip(utterances, said, named, strict=True)
    ], seconds


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
        snr_db=signals.snr_db if signals else None,
        silence=signals.silence if signals else None,
        truncated=heard.truncated,
        retried=heard.retried,
        synthetic=utterance.synthetic,
        condition=part.condition,
    )
