"""Transcripts of any system, from csv or jsonl, for `caspi score`."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from caspi.errors import UsageError
from caspi.evaluation.pairs import Pair
from caspi.folders import not_utf8
from caspi.language import named

# Ours first, then the columns of the ivrit.ai evaluator.
_REFERENCE = ("reference", "reference_text")
_LONGEST_CELL = 100_000_000  # characters: an hour of speech is 50,000
_HYPOTHESIS = ("hypothesis", "predicted_text")


def read_pairs(path: Path, language: str) -> list[Pair]:
    """Reads `reference` and `hypothesis` (or `reference_text`, `predicted_text`), in `language` where a row names no
    other. Raises UsageError: file, line."""
    if path.suffix.lower() not in (".csv", ".jsonl"):
        raise UsageError(f"{path}: expected a .csv (with commas) or .jsonl file with columns reference and hypothesis")
    try:
        pairs = [_pair(row, path, number, language) for number, row in _rows(path)]
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise not_utf8(path, error) from error
    except csv.Error as error:
        raise UsageError(f"{path} is no csv ({error}): was the file cut off?") from error
    if not pairs:
        raise UsageError(f"{path} holds no utterance")
    lines: dict[str, int] = {}
    for number, pair in enumerate(pairs, 1):
        if pair.id in lines:
            raise UsageError(f"{path}: utterances {lines[pair.id]} and {number} have the same id, {pair.id}")
        lines[pair.id] = number
    return pairs


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        if path.suffix.lower() == ".csv":
            yield from _cells(file, path)
            return
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    yield number, json.loads(line)
                except ValueError as error:
                    raise UsageError(f"{path}, line {number} is not JSON ({error}): was the file cut off?") from error


def _cells(file: TextIO, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows of a csv, each with the line it ends on."""
    csv.field_size_limit(_LONGEST_CELL)
    reader = csv.DictReader(file, strict=True)
    for name, times in Counter(reader.fieldnames or ()).items():
        if times > 1:
            raise UsageError(f"{path} has the column {name} {times} times: which one counts?")
    for row in reader:
        if None in row:
            raise UsageError(
                f"{path}, line {reader.line_num} has more cells than the first line has columns: "
                "a text with a comma in it stands in double quotes"
            )
        yield reader.line_num, row


def _pair(row: Any, path: Path, number: int, spoken: str) -> Pair:
    if not isinstance(row, dict):
        raise UsageError(f"{path}, line {number}: expected an object, found {row!r}")
    reference, hypothesis = _first(row, _REFERENCE, path, number), _first(row, _HYPOTHESIS, path, number)
    return Pair(
        id=_given(row, "id") or f"line-{number}",
        reference=reference,
        hypothesis=hypothesis,
        seconds=_seconds(row.get("seconds"), path, number),
        source=_given(row, "source"),
        group=_given(row, "group"),
        language=named(_given(row, "language") or spoken),
    )


def _given(row: dict[str, Any], name: str) -> str:
    """A cell as text, "" where there is none; 0 is a name as good as any."""
    value = row.get(name)
    return "" if value is None else str(value)


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


def _first(row: dict[str, Any], names: tuple[str, ...], path: Path, number: int) -> str:
    for name in names:
        if name in row:
            value = row[name]
            if value is None:  # a csv line with too few cells, or JSON null: an empty transcript is "", not this
                raise UsageError(f"{path}, line {number}: {name} has no value")
            if not isinstance(value, str):
                raise UsageError(f"{path}, line {number}: {name} is {value!r}, not text")
            if any("\ud800" <= letter <= "\udfff" for letter in value):
                raise UsageError(f"{path}, line {number}: {name} holds half a character (a lone surrogate)")
            return value
    raise UsageError(f"{path}, line {number}: no column {' or '.join(names)}; it has {', '.join(map(str, row))}")
