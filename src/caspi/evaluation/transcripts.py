"""Transcripts of any system, from csv or jsonl, for `caspi score`."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from caspi.errors import UsageError
from caspi.evaluation.pairs import Pair
from caspi.language import named

# Ours first, then the columns of the ivrit.ai evaluator.
_REFERENCE = ("reference", "reference_text")
_HYPOTHESIS = ("hypothesis", "predicted_text")


def read_pairs(path: Path, language: str) -> list[Pair]:
    """Reads `reference` and `hypothesis` (or `reference_text`, `predicted_text`), in `language` where a row names no
    other. Raises UsageError: file, line."""
    if path.suffix not in (".csv", ".jsonl"):
        raise UsageError(f"{path}: expected a .csv or .jsonl file with columns reference and hypothesis")
    try:
        pairs = [_pair(row, path, number, language) for number, row in _rows(path)]
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path}: {error}") from error
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
        if path.suffix == ".csv":
            yield from enumerate(csv.DictReader(file), 2)
            return
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    yield number, json.loads(line)
                except ValueError as error:
                    raise UsageError(f"{path}, line {number} is not JSON ({error}): was the file cut off?") from error


def _pair(row: Any, path: Path, number: int, spoken: str) -> Pair:
    if not isinstance(row, dict):
        raise UsageError(f"{path}, line {number}: expected an object, found {row!r}")
    reference, hypothesis = _first(row, _REFERENCE, path, number), _first(row, _HYPOTHESIS, path, number)
    return Pair(
        id=str(row.get("id") or f"line-{number}"),
        reference=reference,
        hypothesis=hypothesis,
        seconds=_seconds(row.get("seconds"), path, number),
        source=str(row.get("source") or ""),
        group=str(row.get("group") or ""),
        language=named(str(row.get("language") or spoken)),
    )


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
            return value
    raise UsageError(f"{path}, line {number}: no column {' or '.join(names)}; it has {', '.join(map(str, row))}")
