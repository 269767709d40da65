"""JSONL manifests: one recording a line, audio beside it (file contract in docs/stages.md)."""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from caspi.corpus.sources.base import (
    Source,
    checked,
    home_of,
    inside,
    opened,
    seconds,
    split_marks,
    split_official,
)  # fmt: skip
from caspi.corpus.utterance import FileAudio, Recording, Segment, Word
from caspi.language import named


class ManifestSource(Source):
    """`group_key` is the field that holds the recording or speaker; without it every audio file is its own group.

    Neighbouring lines that are stretches of one file become one recording, so that the file is read once.
    """

    kind: Literal["manifest"]
    path: Path
    name: str = ""
    group_key: str = "group"
    allow_outside: bool = False

    def recordings(self, language: str, skip: int = 0) -> Iterator[Recording]:
        return itertools.islice(self._joined(language), skip, None)

    def default_name(self) -> tuple[str, Path] | None:
        home = self.path.resolve().parent
        return None if self.name else (home.name, home)

    def count(self) -> int | None:
        return sum(1 for _ in self._joined("Hebrew"))

    def _lines(self, language: str) -> Iterator[Recording]:
        home = home_of(self.path.parent)
        name = self.name or Path(home).name
        for number, line in opened(self.path, "manifest"):
            read = functools.partial(self._recording, line, name, language, home)
            yield checked(read, f"{name}/{self.path.name}, line {number}", name, language)

    def _joined(self, language: str) -> Iterator[Recording]:
        for _, lines in itertools.groupby(self._lines(language), key=_same_file):
            found = list(lines)
            if len(found) == 1 or found[0].end is None:
                yield from found
                continue
            segments = [Segment(line.start, line.end or 0.0, line.text, (), line.id) for line in found]
            yield replace(found[0], id=found[0].id, segments=segments, text="", start=0.0, end=None)

    def _recording(self, line: str, name: str, language: str, home: str) -> Recording:
        row = json.loads(line)
        if not isinstance(row, dict):
            raise TypeError(f"expected an object, found {row!r}")
        if "text" not in row and "segments" not in row:
            raise KeyError("text")
        written = str(row["audio"])
        group = row.get(self.group_key)
        official, text = split_official(str(row.get("text") or ""))
        start = seconds(row.get("start") or 0.0)
        at = f"@{start:g}" if start else ""
        identifier = row.get("id") or f"{name}/{written}{at}"
        quality = row.get("quality")
        return Recording(
            id=str(identifier),
            audio=FileAudio(inside(home, written, self.allow_outside)),
            source=str(row.get("source") or name),
            group=f"{name}/{group or written}",
            language=named(str(row.get("language") or official or language)),
            text=text,
            segments=tuple(_segment(segment) for segment in row.get("segments") or ()) or split_marks(text, start),
            start=start,
            end=seconds(row["end"]) if row.get("end") is not None else None,
            context=str(row.get("context") or row.get("prompt") or ""),
            previous=str(row.get("previous") or ""),
            quality=None if quality is None else float(quality),
            split=self.split,
        )


def _same_file(line: Recording) -> tuple[object, ...]:
    """What lines must share to be stretches of one recording; a line that is none of them is alone."""
    if line.problem or line.segments or line.end is None:
        return (line.id, id(line))
    return (line.audio, line.group, line.source, line.language, line.context, line.previous, line.quality)


def _segment(row: dict[str, Any]) -> Segment:
    """`words` come as [word, start] or [word, start, end]; a missing end is the next word's start."""
    end = seconds(row["end"])
    entries = row.get("words") or []
    words = []
    for index, entry in enumerate(entries):
        following = seconds(entries[index + 1][1]) if index + 1 < len(entries) else end
        words.append(Word(str(entry[0]), seconds(entry[1]), seconds(entry[2]) if len(entry) > 2 else following))
    return Segment(seconds(row["start"]), end, str(row["text"]), tuple(words), str(row.get("id") or ""))
