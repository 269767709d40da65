"""Tables of text: CSV and TSV files, one utterance per row. LJSpeech's and Common Voice's tables are such files."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from caspi.corpus.sources.base import inside
from caspi.corpus.sources.rows import USUAL, Columns, Row, RowSource, meanings
from caspi.errors import UsageError

DELIMITERS = ("\t", ",", ";", "|")
_BOMS = ((b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"), (b"\xef\xbb\xbf", "utf-8-sig"))
_LONGEST_CELL = 1 << 20  # characters


class TableSource(RowSource):
    """A table: one utterance per row, columns in any order. A byte order mark names the encoding."""

    kind: Literal["csv"]
    """Selects this kind of source."""
    encoding: str = "utf-8"
    """The encoding of the file, such as windows-1255, if it has no byte order mark."""
    delimiter: str = ""
    """The character between columns. Without it, that of tab, comma, semicolon and | which divides the first line into
    known columns, or into most."""
    quoting: bool = True
    """Whether a cell that begins with a quotation mark ends at the next one. Common Voice's and LJSpeech's tables
    have no such cells."""
    header: tuple[str, ...] = ()
    """Names of the columns, if the first line of the file does not give them."""
    audio_folder: str = ""
    """The folder of the audio files, relative to that of the table."""
    audio_ending: str = ""
    """What is added to the names of audio files, such as .wav."""

    def rows(self) -> Iterator[tuple[int, Callable[[], Row]]]:
        with open_table(self.path, self.encoding) as file:
            # Strict: elsewhere, a quotation mark that is not closed takes in the rows up to the next one.
            reader = csv.reader(
                file, delimiter=self.found_delimiter(), strict=self.quoting,
                quoting=csv.QUOTE_MINIMAL if self.quoting else csv.QUOTE_NONE,
            )  # fmt: skip
            names = list(self.header) or [name.strip() for name in next(_checked(self.path, reader), [])]
            self._check(names)
            unused = self._unused(names)
            first = reader.line_num + 1
            for cells in _checked(self.path, reader):
                if cells:
                    yield first, partial(_row, names, cells, first, reader.line_num, unused)
                first = reader.line_num + 1

    def found_delimiter(self) -> str:
        """The given one, or the one that divides the first line best."""
        if self.delimiter:
            return self.delimiter
        with open_table(self.path, self.encoding) as file:
            line = file.readline()
        return max(DELIMITERS, key=lambda one: self._known(next(csv.reader([line], delimiter=one), [])))

    def audio_path(self, home: str, written: str) -> Path:
        return inside(home, os.path.join(self.audio_folder, written) + self.audio_ending, self.allow_outside)

    def _known(self, names: Sequence[str]) -> tuple[int, int]:
        """How many columns have a meaning, and how many there are."""
        found = meanings(frozenset(name.strip() for name in names), self.columns)
        return sum(bool({*keys} & {name.strip() for name in names}) for keys in found.values()), len(names)

    def _unused(self, names: Sequence[str]) -> frozenset[str]:
        """Durations of whole files: to cut files at rounded ones would lose their last words."""
        found = meanings(frozenset(names), self.columns)
        is_of_parts = found["start"] or found["end"] or self.columns.duration
        return frozenset() if is_of_parts else frozenset(found["duration"])

    def _check(self, names: Sequence[str]) -> None:
        """Raises UsageError if there is no column for the audio or the text."""
        found = meanings(frozenset(names), self.columns)
        for meaning in ("audio", "text"):
            if not any(name in names for name in found[meaning]):
                own = getattr(self.columns, meaning)
                what = f"no column {own!r}" if own else f"no column for the {meaning} ({', '.join(USUAL[meaning])})"
                raise UsageError(
                    f"table {self.path}: {what}; its columns are {', '.join(map(repr, names)) or 'none'}: name one by "
                    f"columns: {{{meaning}: NAME}}, or all by header"
                )
        for meaning in Columns.model_fields:
            if (own := getattr(self.columns, meaning)) and own not in names:
                raise UsageError(f"table {self.path}: no column {own!r}; its columns are {', '.join(map(repr, names))}")
        if len(set(names)) < len(names):
            raise UsageError(f"table {self.path}: two columns have the same name: {', '.join(names)}")


def open_table(path: Path, encoding: str) -> io.TextIOWrapper:
    """The text of a table; bytes that are not of the encoding become surrogates, which `checked` refuses. Raises
    UsageError."""
    try:
        with path.open("rb") as binary:
            start = binary.read(4)
        found = next((name for mark, name in _BOMS if start.startswith(mark)), encoding)
        if b"\0" in start and found == encoding and "16" not in encoding:
            raise UsageError(f"table {path} is not {encoding}: it may be UTF-16 (encoding: utf-16-le)")
        return path.open(encoding=found, errors="surrogateescape", newline="")
    except LookupError as error:
        raise UsageError(f"table {path}: there is no encoding {encoding!r}") from error
    except OSError as error:
        raise UsageError(f"table {path}: {error.strerror}; check sources.path in the recipe") from error


def _checked(path: Path, reader: Any) -> Iterator[list[str]]:
    """Raises UsageError where the file is not a table."""
    csv.field_size_limit(_LONGEST_CELL)
    try:
        yield from reader
    except (csv.Error, UnicodeDecodeError) as error:
        hint = ": is a quotation mark before it not closed, or not doubled? (quoting: false)"
        raise UsageError(
            f"table {path}, line {reader.line_num}: {error}{hint if isinstance(error, csv.Error) else ''}"
        ) from error


def _row(names: Sequence[str], cells: Sequence[str], first: int, last: int, unused: frozenset[str]) -> Row:
    """Empty cells are left out, except for the names of columns. Raises ValueError for a row of another width, and for
    one that took in the rows after it."""
    if len(cells) != len(names):
        swallowed = (
            f" (lines {first} to {last}: is a quotation mark not closed? quoting: false)" if last > first else ""
        )
        raise ValueError(f"{len(cells)} cells, but {len(names)} columns{swallowed}")
    if last - first > _MOST_LINES:
        raise ValueError(f"one row from line {first} to {last}: is a quotation mark not closed? (quoting: false)")
    return {name: cell.strip() for name, cell in zip(names, cells, strict=True) if name not in unused}


_MOST_LINES = 20  # of one transcript
