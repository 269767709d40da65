"""Which columns of an unknown table hold the audio and the text, and where its audio files are."""

from __future__ import annotations

import codecs
import csv
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from caspi.corpus.sources.folder import AUDIO_ENDINGS
from caspi.corpus.sources.rows import Columns, meanings
from caspi.corpus.sources.table import TableSource, open_table
from caspi.errors import UsageError

_FIRST_ROWS = 200
_LOOKED_AT = 1 << 20  # bytes, to tell the encoding


def table_source(path: Path) -> tuple[dict[str, Any], str, list[str]]:
    """The source of a table as the recipe writes it, what it is, and what was assumed: columns that have no usual names
    are guessed from what is in them. Raises UsageError."""
    encoding = _encoding(path)
    delimiter, names, rows = _read_table(path, encoding)
    known = meanings(frozenset(names), Columns())
    columns: dict[str, str] = {}
    notes: list[str] = []
    audio = next((name for name in known["audio"] if name in names), "") or _audio_column(path.parent, names, rows)
    text = next((name for name in known["text"] if name in names), "") or _text_column(names, rows, audio)
    if not audio or not text:
        what = "audio files" if not audio else "a text"
        raise UsageError(f"{path}: no column holds {what}; its columns are {', '.join(map(repr, names))}")
    for meaning, name in (("audio", audio), ("text", text)):
        if name not in known[meaning]:
            columns[meaning] = name
            notes.append(f"column {name!r} holds the {meaning}: guessed from what is in it")
    place = _place([row[names.index(audio)] for row in rows], path.parent)
    config: dict[str, Any] = {"kind": "csv", "path": str(path), "name": path.parent.resolve().name}
    config |= {"columns": columns} if columns else {}
    config |= {"encoding": encoding} if encoding != "utf-8" else {}
    config |= {key: value for key, value in zip(("audio_folder", "audio_ending"), place, strict=True) if value}
    if not _quotes_close(path, encoding, delimiter):
        config["quoting"] = False
        notes.append("quotation marks are taken as part of the text: some are not closed")
    return config, f"a table with columns {', '.join(names)}", notes


def _encoding(path: Path) -> str:
    """utf-8 (or what a byte order mark says), or windows-1255 if it is not UTF-8 but Hebrew."""
    with path.open("rb") as file:
        content = file.read(_LOOKED_AT)
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "utf-8"
    for encoding in ("utf-8", "windows-1255"):
        try:  # the last character may be cut off
            text = codecs.getincrementaldecoder(encoding)().decode(content, final=len(content) < _LOOKED_AT)
        except UnicodeDecodeError:
            continue
        if encoding == "utf-8" or any("א" <= letter <= "ת" for letter in text):
            return encoding
    raise UsageError(f"{path} is not UTF-8 and not windows-1255: name its encoding in the recipe (encoding: ...)")


def _read_table(path: Path, encoding: str) -> tuple[str, list[str], list[list[str]]]:
    """The delimiter that the source will find, the names of the columns, and the first rows."""
    with open_table(path, encoding) as file:
        lines = list(itertools.islice(file, _FIRST_ROWS))
    if not lines:
        raise UsageError(f"{path} is empty")
    delimiter = TableSource(kind="csv", path=path, encoding=encoding).found_delimiter()
    names, *rows = csv.reader(lines, delimiter=delimiter)
    return delimiter, [name.strip() for name in names], [row for row in rows if len(row) == len(names)]


def _audio_column(folder: Path, names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The column most of whose values are names of files."""
    shares = {name: _share_found([row[n] for row in rows], folder) for n, name in enumerate(names)}
    best = max(shares, key=lambda name: shares[name])
    return best if shares[best] > 0.5 else ""


def _text_column(names: Sequence[str], rows: Sequence[Sequence[str]], audio: str) -> str:
    """The column with most letters and spaces."""
    letters = {
        name: sum(sum(map(str.isalpha, row[n])) * (" " in row[n].strip()) for row in rows)
        for n, name in enumerate(names)
        if name != audio
    }
    best = max(letters, key=lambda name: letters[name], default="")
    return best if best and letters[best] else ""


def _share_found(values: Sequence[str], folder: Path) -> float:
    where, ending = _place(values, folder)
    found = sum((folder / where / f"{value}{ending}").is_file() for value in values if value)
    return found / max(1, len(values))


def _place(values: Sequence[str], folder: Path) -> tuple[str, str]:
    """The folder of the audio files below the table's, and the ending that their names lack."""
    value = next((value for value in values if value), "")
    endings = ("", *sorted(AUDIO_ENDINGS))
    folders = ("", *sorted(path.name for path in folder.iterdir() if path.is_dir()))
    places: Iterator[tuple[str, str]] = itertools.product(folders, endings)
    return next(
        ((where, end) for where, end in places if value and (folder / where / f"{value}{end}").is_file()), ("", "")
    )


def _quotes_close(path: Path, encoding: str, delimiter: str) -> bool:
    with open_table(path, encoding) as file:
        try:
            widths = {len(row) for row in csv.reader(file, delimiter=delimiter, strict=True) if row}
        except csv.Error:
            return False
    return len(widths) == 1
