"""JSONL manifests: one recording a line, audio beside it (file contract in docs/stages.md)."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from caspi.corpus.sources.base import Source, digest, home_of, inside, opened, seconds, split_marks, split_official
from caspi.corpus.utterance import FileAudio, Recording, Segment, Word
from caspi.errors import UsageError


class ManifestSource(Source):
    """`group_key` is the field that holds the recording or speaker; without it every line is its own group."""

    kind: Literal["manifest"]
    path: Path
    name: str = ""
    group_key: str = "group"
    allow_outside: bool = False

    def recordings(self, language: str, skip: int = 0) -> Iterator[Recording]:
        home = home_of(self.path.parent)
        for number, line in itertools.islice(opened(self.path, "manifest"), skip, None):
            try:
                yield self._recording(json.loads(line), number, language, home)
            except (ValueError, KeyError, TypeError, IndexError) as error:
                problem = f"no field {error}" if isinstance(error, KeyError) else str(error)
                raise UsageError(f"manifest {self.path}, line {number}: {problem}") from error

    def identity(self) -> str:
        return digest(self.path, "manifest")

    def count(self) -> int | None:
        return sum(1 for _ in opened(self.path, "manifest"))

    def _recording(self, row: dict[str, Any], number: int, language: str, home: str) -> Recording:
        name = self.name or self.path.parent.name
        if not isinstance(row, dict):
            raise TypeError(f"expected an object, found {row!r}")
        if "text" not in row and "segments" not in row:
            raise KeyError("text")
        group = row.get(self.group_key)
        # A group names a line only where the line is the whole recording, cut below.
        identifier = str(row.get("id") or (group if row.get("segments") else None) or f"{self.path.stem}-{number:07d}")
        named, text = split_official(str(row.get("text") or ""))
        quality = row.get("quality")
        return Recording(
            id=identifier,
            audio=FileAudio(inside(home, str(row["audio"]), self.allow_outside)),
            source=str(row.get("source") or name),
            group=f"{name}/{group or identifier}",
            language=str(row.get("language") or named or language),
            text=text,
            segments=[_segment(segment) for segment in row.get("segments") or ()] or split_marks(text),
            start=seconds(row.get("start") or 0.0),
            end=seconds(row["end"]) if row.get("end") is not None else None,
            context=str(row.get("context") or row.get("prompt") or ""),
            previous=str(row.get("previous") or ""),
            quality=None if quality is None else float(quality),
            split=self.split,
        )


def _segment(row: dict[str, Any]) -> Segment:
    """`words` come as [word, start] or [word, start, end]; a missing end is the next word's start."""
    end = seconds(row["end"])
    entries = row.get("words") or []
    words = []
    for index, entry in enumerate(entries):
        following = seconds(entries[index + 1][1]) if index + 1 < len(entries) else end
        words.append(Word(str(entry[0]), seconds(entry[1]), seconds(entry[2]) if len(entry) > 2 else following))
    return Segment(seconds(row["start"]), end, str(row["text"]), tuple(words), str(row.get("id") or ""))
