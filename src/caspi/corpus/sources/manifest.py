"""JSONL manifests: one recording per line, audio beside it (file contract in docs/stages.md)."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

from caspi.corpus.sources.base import opened
from caspi.corpus.sources.rows import Row, RowSource
from caspi.errors import UsageError


class ManifestSource(RowSource):
    """A JSONL manifest, caspi's own or NeMo's: one recording per line.

    A line may give its position in the file by `start` and `end`, or by `offset` and `duration` as in NeMo, and its
    `channel`.
    """

    kind: Literal["manifest"]
    """Selects this kind of source."""

    def rows(self) -> Iterator[tuple[int, Callable[[], Row]]]:
        for number, line in opened(self.path, "manifest"):
            if number == 1:
                _check_kind(self.path, line)
            yield number, functools.partial(_row, line)


def _row(line: str) -> Row:
    row = json.loads(line)
    if not isinstance(row, dict):
        raise TypeError(f"expected an object, found {row!r}")
    return row


def _check_kind(path: Path, first: str) -> None:
    """Raises UsageError if the first line shows that this is a file of another kind."""
    if first.lstrip().startswith("["):
        raise UsageError(
            f"manifest {path} is one JSON array: it needs one object per line (jq -c '.[]' {path.name} > lines.jsonl)"
        )
    if not first.lstrip().startswith("{"):
        raise UsageError(
            f"manifest {path}: line 1 is not a JSON object ({first.strip()[:40]!r}): a manifest has a line like "
            '{"audio": "a.wav", "text": "..."} for every utterance; a table is a source of `kind: csv`'
        )
