"""Benchmark sets by name: downloaded once, kept complete with their published text, pinned to a revision."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from caspi import atomic_output, audio
from caspi.atomic_output import REPORT
from caspi.audio import SAMPLE_RATE, AudioError
from caspi.corpus.signals import measure_signals, spectrogram
from caspi.corpus.sources.base import Source
from caspi.corpus.sources.catalogue import CATALOGUE
from caspi.corpus.sources.huggingface import HuggingFaceSource
from caspi.corpus.sources.manifest import ManifestSource
from caspi.corpus.sources.rows import Columns
from caspi.corpus.store import SCHEMA, Corpus, ShardWriter, row
from caspi.corpus.utterance import Recording, Segment, Utterance, Word
from caspi.errors import UsageError
from caspi.language import language as language_of
from caspi.progress import Progress

# The sets of ivrit.ai's leaderboard.
SETS: dict[str, tuple[str, ...]] = {
    "ivrit": ("eval-d1", "eval-whatsapp", "saspeech", "fleurs-he", "common-voice-he", "kan")
}
_STAGE = "benchmark"
_BY_LETTERS = "Hebrew"  # what the letters of a manifest are compared with


def named(asked: str) -> list[str]:
    """The sets that a name stands for, each with the part after the @; empty if it is not a benchmark's name."""
    name, at, _ = asked.partition("@")
    if name in SETS:
        if at:
            raise UsageError(f"{asked}: a revision belongs to one set; name one of {', '.join(SETS[name])}")
        return list(SETS[name])
    return [asked] if any(name in sets for sets in SETS.values()) else []


def open_set(asked: str) -> Corpus:
    """A set as a corpus, downloaded if it is not there yet; `NAME`, `NAME@REVISION` or `NAME@FOLDER` of its parquet
    files. Without a revision the first download takes the newest one, and later calls use the same.

    Raises UsageError if it is gated or missing, or if one of its rows cannot be used: a benchmark must be complete.
    """
    name, _, where = asked.partition("@")
    files = Path(where) if where and Path(where).is_dir() else None
    known = CATALOGUE[name]
    source = HuggingFaceSource(
        kind="huggingface", dataset=name, files=files, revision=None if files else where or None, split="test"
    )
    folder = _cache() / (f"{name}@{_tail(where)}" if where else name)
    if atomic_output.stage_of(folder) != _STAGE or (
        files and atomic_output.report_of(folder)["identity"] != source.identity()
    ):
        _fetch(source, known.licence, name, folder, known.language)
    return Corpus.open(folder, "test")


def open_manifest(path: Path, language: str | None = None, group_key: str = "") -> Corpus:
    """A JSONL manifest as a set of its own: every line is an utterance, or each of its segments if it has segments and
    no text. language: of lines that name no language; group_key: the field with the speaker. Kept until the manifest
    or the audio changes. Raises UsageError as `open_set` does, and if the language follows neither from the line, nor
    from `language`, nor from the letters."""
    source = ManifestSource(
        kind="manifest", path=path, name=path.stem, split="test", columns=Columns(speaker=group_key)
    )
    if group_key and source.grouped_by() != group_key:
        raise UsageError(f"--group-key {group_key}: no line of {path} has this field with a value")
    spoken = language or _by_its_letters(source)
    place = hashlib.blake2b(str(path.resolve()).encode(), digest_size=8).hexdigest()
    folder = _cache() / f"{path.stem}@{place}"
    identity = f"{source.identity()} {spoken} {group_key} {_FIELDS}"
    if atomic_output.report_of(folder).get("identity") != identity:
        _fetch(source, "", path.stem, folder, spoken, identity, source.grouped_by() or "")
    return Corpus.open(folder, "test")


_NOT_NAMED = ""
_FIELDS = "context previous words"  # that copies of version 0.1 do not have


def _by_its_letters(source: ManifestSource) -> str:
    """Hebrew, if the lines of a manifest that name no language are written in Hebrew letters."""
    texts = [
        " ".join((recording.text, *(segment.text for segment in recording.segments)))
        for recording in source.recordings(_NOT_NAMED)
        if recording.language == _NOT_NAMED and not recording.problem
    ]
    if any(texts) and language_of(_BY_LETTERS).script_share(" ".join(texts)) < 0.5:
        raise UsageError(
            f"{source.path}: {len(texts):,} lines name no language, and their letters are not Hebrew: give --language, "
            "such as --language Spanish"
        )
    return _BY_LETTERS


def grouped_by(corpus: Corpus) -> str | None:
    """The field that a manifest's groups come from, "" if no field names the speaker; None for other corpora."""
    found: str | None = atomic_output.report_of(corpus.folder).get("grouped_by")
    return found


def revision(corpus: Corpus) -> str | None:
    """The revision a benchmark set was downloaded from; None for a corpus that is not a benchmark set."""
    content = atomic_output.report_of(corpus.folder)
    return content["identity"] if content.get("stage") == _STAGE else None


def _cache() -> Path:
    return Path(os.environ.get("CASPI_CACHE") or Path.home() / ".cache" / "caspi") / "benchmarks"


def _tail(where: str) -> str:
    return where.strip("/").replace("/", "_")[-60:]


def _fetch(
    source: Source,
    licence: str,
    name: str,
    folder: Path,
    language: str,
    identity: str | None = None,
    grouped: str | None = None,
) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    if folder.exists():
        atomic_output.check_owned(folder, _STAGE)
    identity = identity or source.identity()
    partial = atomic_output.begin_atomic(folder, _STAGE)
    try:
        writer = ShardWriter(partial, "test")
        with Progress(f"fetch {name}", unit="utterances") as progress:
            for utterance, flac in _utterances(source, name, language):
                digest = hashlib.blake2b(flac, digest_size=16).digest()
                writer.write(pa.RecordBatch.from_pylist([row(utterance, flac, digest)], SCHEMA))
                progress.advance(1)
        writer.close()
    except BaseException:
        shutil.rmtree(partial)
        raise
    content = {
        "stage": _STAGE, "set": name, "identity": identity, "licence": licence, "utterances": writer.count,
        "hours": writer.seconds / 3600, "fingerprint": writer.fingerprint, "grouped_by": grouped,
    }  # fmt: skip
    (partial / REPORT).write_text(json.dumps(content, indent=1), encoding="utf-8")
    atomic_output.commit_atomic(partial, folder)


def _utterances(source: Source, name: str, language: str) -> Iterator[tuple[Utterance, bytes]]:
    """Every row, without cleaning or filtering; rows with the same key are numbered."""
    seen: Counter[str] = Counter()
    for recording in source.recordings(language):
        if recording.problem:
            raise UsageError(f"{recording.problem}: a benchmark must be complete")
        try:
            stream, _ = recording.audio.open()
            samples = np.concatenate(list(stream.blocks))
        except AudioError as error:
            raise UsageError(f"{recording.id} cannot be decoded ({error}): a benchmark must be complete") from error
        for part in _parts(recording):
            seen[part.id] += 1
            yield _utterance(recording, part, samples, seen[part.id])
    if not seen:
        raise UsageError(f"{name} has no utterances: there is nothing to evaluate")


def _parts(recording: Recording) -> Sequence[Segment]:
    """The recording as one segment, or its own segments if only they have a text."""
    if recording.text or not recording.segments:
        end = float("inf") if recording.end is None else recording.end
        timed = [segment for segment in recording.segments if segment.text == recording.text]
        return [Segment(recording.start, end, recording.text, timed[0].words if timed else (), recording.id)]
    return [
        replace(segment, id=segment.id or f"{recording.id}-{number}")
        for number, segment in enumerate(recording.segments, 1)
    ]


def _utterance(recording: Recording, part: Segment, whole: np.ndarray, time: int) -> tuple[Utterance, bytes]:
    end = len(whole) if part.end == float("inf") else round(part.end * SAMPLE_RATE)
    samples = whole[round(part.start * SAMPLE_RATE) : end]
    if not len(samples):
        raise UsageError(f"{part.id}: the audio ends before the segment starts, at {part.start:g} s")
    utterance = Utterance(
        id=part.id if time == 1 else f"{part.id}-{time}",
        text=part.text,
        seconds=len(samples) / SAMPLE_RATE,
        source=recording.source,
        group=recording.group,
        language=recording.language,
        context=recording.context,
        previous=recording.previous,
        words=tuple(Word(word.text, word.start - part.start, word.end - part.start) for word in part.words),
        signals=measure_signals(samples, spectrogram(samples)),
    )
    return utterance, audio.encode_flac(audio.pcm16(samples))
