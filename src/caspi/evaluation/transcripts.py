"""Transcripts of any system for `caspi score`: tables with one row per utterance, or a file of references and one of
hypotheses."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from caspi.atomic_output import not_utf8
from caspi.corpus.sources.rows import USUAL
from caspi.errors import UsageError
from caspi.evaluation.pairs import TranscriptPair
from caspi.evaluation.transcript_files import paired_files
from caspi.language import named

# Common column names; case, blanks and underscores are ignored. The first name that a file has is used.
_NAMES = {
    "reference": (
        "reference", "reference_text", "references", "ref", "ground_truth", "sentence", "transcript", "transcription",
        "target", "label", "text",
    ),
    "hypothesis": (
        "hypothesis", "predicted_text", "hypotheses", "hyp", "pred_text", "prediction", "predictions", "predicted",
        "pred", "prediction_text", "output",
    ),
    "id": ("id", "utterance_id", "utt_id", "uttid", "segment_id", "key"),
    "seconds": ("seconds", "duration", "audio_duration", "audio_seconds"),
    "group": USUAL["speaker"],
    "source": ("source", "dataset", "corpus"),
    "language": ("language", "lang", "locale"),
}  # fmt: skip
_FILE_NAMES = ("filename", "file", "audio_filepath", "audio", "path")  # used as the id if each occurs once
_LONGEST_CELL = 100_000_000  # characters: an hour of speech is 50,000


@dataclass(frozen=True, slots=True)
class Columns:
    """Column names that the user gave; the other columns are found by their common names."""

    reference: str = ""
    hypothesis: str = ""
    id: str = ""
    group: str = ""


@dataclass(frozen=True, slots=True)
class Transcripts:
    """pairs: the utterances read. used: the column of each field; unused: columns that are ignored."""

    pairs: list[TranscriptPair]
    used: dict[str, str] = field(default_factory=dict)
    unused: list[str] = field(default_factory=list)


def read_transcripts(
    path: Path, language: str, columns: Columns = Columns(), hypotheses: Path | None = None
) -> Transcripts:
    """Reads a table (csv with any delimiter, tsv, jsonl, a JSON array, parquet), or a file of references and one of
    hypotheses (transcript_files). language: of rows that name none. Raises UsageError with file and line."""
    try:
        if hypotheses is not None:
            found = [TranscriptPair(id=key, reference=one, hypothesis=other, language=language) for key, one, other in
                     paired_files(path, hypotheses)]  # fmt: skip
            return Transcripts(_distinct(found, path))
        rows = list(_rows(path))
    except OSError as error:
        raise UsageError(f"{error.filename or path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise not_utf8(path, error) from error
    if not rows:
        raise UsageError(f"{path} holds no utterance")
    used = _columns(rows, path, columns)
    pairs = [_pair(row, used, path, number, language) for number, row in rows]
    if "id" not in used:
        pairs = _named_by_file(pairs, rows, used)
    unused = [name for name in dict.fromkeys(key for _, row in rows for key in row) if name not in used.values()]
    return Transcripts(_distinct(pairs, path), used, unused)


def _distinct(pairs: list[TranscriptPair], path: Path) -> list[TranscriptPair]:
    """Raises UsageError if two have the same id."""
    if not pairs:
        raise UsageError(f"{path} holds no utterance")
    lines: dict[str, int] = {}
    for number, pair in enumerate(pairs, 1):
        if pair.id in lines:
            raise UsageError(f"{path}: utterances {lines[pair.id]} and {number} have the same id, {pair.id}")
        lines[pair.id] = number
    return pairs


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Numbered rows of a table."""
    kind = path.suffix.lower()
    if kind == ".parquet":
        import pyarrow.parquet as pq

        yield from enumerate(pq.read_table(path).to_pylist(), 1)
        return
    if kind not in (".csv", ".tsv", ".jsonl", ".json"):
        raise UsageError(
            f"{path}: expected .csv, .tsv, .jsonl, .json or .parquet with columns reference and hypothesis, or two "
            "files, references and hypotheses (trn, Kaldi text, stm and ctm, plain lines)"
        )
    with path.open(encoding="utf-8-sig", newline="") as file:
        if kind in (".csv", ".tsv"):
            yield from _cells(file, path)
        elif kind == ".json":
            yield from _array(file, path)
        else:
            yield from _objects(file, path)


def _array(file: TextIO, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        rows = json.load(file)
    except ValueError as error:
        if not str(error).startswith("Extra data"):
            raise UsageError(f"{path} is not JSON ({error}): was the file cut off?") from error
        file.seek(0)  # one object per line
        yield from _objects(file, path)
        return
    if not isinstance(rows, list):
        raise UsageError(f"{path}: expected a list of objects, found {str(rows)[:40]}")
    yield from ((number, _object(row, path, number)) for number, row in enumerate(rows, 1))


def _objects(file: TextIO, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(file, 1):
        if line.strip():
            try:
                row = json.loads(line)
            except ValueError as error:
                raise UsageError(f"{path}, line {number} is not JSON ({error}): was the file cut off?") from error
            yield number, _object(row, path, number)


def _object(row: Any, path: Path, number: int) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise UsageError(f"{path}, line {number}: expected an object, found {row!r}")
    return row


def _cells(file: TextIO, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows of a csv, each with the number of its last line."""
    csv.field_size_limit(_LONGEST_CELL)
    header = file.readline()
    file.seek(0)
    if header.startswith("\ufeff"):
        file.read(1)
    delimiter = max(",;\t|", key=header.count)
    reader = csv.DictReader(file, strict=True, delimiter=delimiter)
    try:
        names = reader.fieldnames or ()
        for name, times in Counter(names).items():
            if times > 1:
                raise UsageError(f"{path} has the column {name} {times} times: rename or remove the others")
        for row in reader:
            if None in row:
                raise UsageError(
                    f"{path}, line {reader.line_num} has more cells than the first line has columns: put a text that "
                    f"contains {delimiter!r} in double quotes"
                )
            yield reader.line_num, row
    except csv.Error as error:
        raise UsageError(
            f"{path}, line {reader.line_num + 1} cannot be read ({error}): put a text that begins with a double quote "
            "in double quotes and double its own; or was the file cut off?"
        ) from error


def _columns(rows: Sequence[tuple[int, dict[str, Any]]], path: Path, given: Columns) -> dict[str, str]:
    """Field -> column. Raises UsageError if a requested column, the reference or the hypothesis is missing."""
    names = [str(name) for name in dict.fromkeys(key for _, row in rows for key in row)]
    has = {_plain(name): name for name in reversed(names)}
    used: dict[str, str] = {}
    for name, usual in _NAMES.items():
        asked = getattr(given, name, "")
        if asked and asked not in has.values():
            raise UsageError(f"{path}: no column {asked}; it has {', '.join(names)}")
        taken = set(used.values())
        found = asked or next((has[_plain(one)] for one in usual if has.get(_plain(one), "") not in ("", *taken)), "")
        if found:
            used[name] = found
    for name in ("reference", "hypothesis"):
        if name not in used:
            raise UsageError(
                f"{path}: no column {name}, nor any of its usual names; it has {', '.join(names)}: "
                f"name it with --{name}"
            )
    return used


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]", "", name).lower()


def _pair(row: dict[str, Any], used: dict[str, str], path: Path, number: int, spoken: str) -> TranscriptPair:
    def given(name: str) -> str:
        """A cell as text, "" if it is missing; 0 is a valid name."""
        value = row.get(used.get(name, ""))
        return "" if value is None else str(value)

    try:
        language = named(given("language") or spoken)
    except ValueError as error:
        raise UsageError(f"{path}, line {number}: {error}") from error
    return TranscriptPair(
        id=given("id") or f"line-{number}",
        reference=_text(row, used["reference"], path, number),
        hypothesis=_text(row, used["hypothesis"], path, number),
        seconds=_seconds(row.get(used.get("seconds", "")), path, number),
        source=given("source"),
        group=given("group"),
        language=language,
    )


def _named_by_file(
    pairs: list[TranscriptPair], rows: Sequence[tuple[int, dict[str, Any]]], used: dict[str, str]
) -> list[TranscriptPair]:
    """Uses the audio file names as ids, if there is such a column and no name occurs twice."""
    has = {_plain(str(name)): name for _, row in rows for name in row}
    column = next((has[_plain(name)] for name in _FILE_NAMES if _plain(name) in has), None)
    names = [str(row.get(column) or "") for _, row in rows] if column else []
    if column is None or len(set(names)) < len(names) or not all(names):
        return pairs
    used["id"] = column
    return [TranscriptPair(**{**_fields(pair), "id": name}) for pair, name in zip(pairs, names, strict=True)]


def _fields(pair: TranscriptPair) -> dict[str, Any]:
    return {name: getattr(pair, name) for name in TranscriptPair.__dataclass_fields__}


def _seconds(value: Any, path: Path, number: int) -> float | None:
    if value in (None, ""):
        return None
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise UsageError(f"{path}, line {number}: seconds is {value!r}, not a duration")
    return seconds


def _text(row: dict[str, Any], name: str, path: Path, number: int) -> str:
    if name not in row:
        raise UsageError(f"{path}, line {number}: no {name}; it has {', '.join(map(str, row))}")
    value = row[name]
    if value is None:  # a csv line with too few cells, or JSON null: an empty transcript is "", not this
        raise UsageError(f"{path}, line {number}: {name} has no value")
    if not isinstance(value, str):
        raise UsageError(f"{path}, line {number}: {name} is {value!r}, not text")
    if any("\ud800" <= letter <= "\udfff" for letter in value):
        raise UsageError(f"{path}, line {number}: {name} holds half a character (a lone surrogate)")
    return value
