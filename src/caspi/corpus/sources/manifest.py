"""JSONL manifests: one recording a line, audio beside it (file contract in docs/stages.md)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from caspi.config import Config
from caspi.corpus.utterance import FileAudio, Recording, Segment, Split, Word
from caspi.errors import UsageError

_OFFICIAL_PREFIX = "language "
_OFFICIAL_MARK = "<asr_text>"


class ManifestSource(Config):
    """`group_key` is the field that holds the recording or speaker; without it every line is its own group."""

    kind: Literal["manifest"]
    path: Path
    name: str = ""
    group_key: str = "group"
    split: Split | None = None
    allow_outside: bool = False

    def recordings(self, language: str) -> Iterator[Recording]:
        """One Recording a line. Raises UsageError naming file and line."""
        try:
            lines = self.path.open(encoding="utf-8")
        except OSError as error:
            raise UsageError(f"manifest {self.path}: {error.strerror}; check sources.path in the recipe") from error
        with lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    try:
                        yield self._recording(json.loads(line), number, language)
                    except (ValueError, KeyError, TypeError) as error:
                        problem = f"no field {error}" if isinstance(error, KeyError) else str(error)
                        raise UsageError(f"manifest {self.path}, line {number}: {problem}") from error

    def _recording(self, row: dict[str, Any], number: int, language: str) -> Recording:
        name = self.name or self.path.parent.name
        if not isinstance(row, dict):
            raise TypeError(f"expected an object, found {row!r}")
        group = row.get(self.group_key)
        # A group names a line only where the line is the whole recording, cut below.
        identifier = str(row.get("id") or (group if row.get("segments") else None) or f"{self.path.stem}-{number:07d}")
        named, text = _split_official(str(row.get("text", "")))
        if "text" not in row and "segments" not in row:
            raise KeyError("text")
        return Recording(
            id=identifier,
            audio=FileAudio(self._audio_path(str(row["audio"]))),
            source=str(row.get("source") or name),
            group=f"{name}/{group or identifier}",
            language=str(row.get("language") or named or language),
            text=text,
            segments=[_segment(segment) for segment in row.get("segments") or ()],
            start=float(row.get("start") or 0.0),
            end=float(row["end"]) if row.get("end") is not None else None,
            context=str(row.get("context") or row.get("prompt") or ""),
            split=self.split,
        )

    def _audio_path(self, written: str) -> Path:
        folder = self.path.parent.resolve()
        path = (folder / written).resolve()
        if not self.allow_outside and not path.is_relative_to(folder):
            raise ValueError(f"audio {written!r} lies outside {folder}; set allow_outside: true to read it")
        return path


def _split_official(text: str) -> tuple[str | None, str]:
    """`language Hebrew<asr_text>words` of the official script to its language and its words."""
    if text.startswith(_OFFICIAL_PREFIX) and _OFFICIAL_MARK in text:
        head, _, words = text.partition(_OFFICIAL_MARK)
        return head.removeprefix(_OFFICIAL_PREFIX).strip(), words
    return None, text


def _segment(row: dict[str, Any]) -> Segment:
    """`words` come as [word, start] or [word, start, end]; a missing end is the next word's start."""
    end = float(row["end"])
    entries = row.get("words") or []
    words = []
    for index, entry in enumerate(entries):
        following = float(entries[index + 1][1]) if index + 1 < len(entries) else end
        words.append(Word(str(entry[0]), float(entry[1]), float(entry[2]) if len(entry) > 2 else following))
    return Segment(float(row["start"]), end, str(row["text"]), tuple(words))
