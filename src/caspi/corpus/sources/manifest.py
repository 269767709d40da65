"""JSONL manifests: one recording per line, audio beside it (file contract in docs/stages.md)."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from caspi.corpus.sources.base import (
    SPEAKER_KEYS,
    Source,
    checked,
    home_of,
    inside,
    opened,
    seconds,
    speaker_of,
    split_marks,
    split_official,
)  # fmt: skip
from caspi.corpus.utterance import FileAudio, Recording, Segment, Split, Word
from caspi.errors import UsageError
from caspi.language import named
from caspi.language.codes import NO_SPEECH

_log = logging.getLogger(__name__)


class ManifestSource(Source):
    """A JSONL manifest: one recording per line.

    Neighbouring lines that are parts of one file become one recording, so that the file is read once. A line may give
    its position in the file by `start` and `end`, or by `offset` and `duration` as in NeMo, and its `channel`.
    """

    kind: Literal["manifest"]
    """Selects this kind of source."""
    path: Path
    """The manifest file."""
    name: str = ""
    """The name of the source in the corpus. Without it, the name of the folder of the file."""
    group_key: str = ""
    """The field with the recording or speaker (the group). Without it, the first of these that a line has: group,
    speaker, speaker_id, spk, spk_id, client_id, speaker_name. A line with none of them has its audio file as group."""
    allow_outside: bool = False
    """Whether audio files may be outside the folder of the manifest."""

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
            if number == 1:
                _check_kind(self.path, line)
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

    def grouped_by(self) -> str | None:
        """The speaker field of the first line that has one, None if no line does."""
        keys = (self.group_key,) if self.group_key else SPEAKER_KEYS
        for _, line in opened(self.path, "manifest"):
            with contextlib.suppress(ValueError, AttributeError):
                row = json.loads(line)
                if found := next((key for key in keys if row.get(key)), None):
                    return found
        return None

    def _recording(self, line: str, name: str, language: str, home: str) -> Recording:
        row = json.loads(line)
        if not isinstance(row, dict):
            raise TypeError(f"expected an object, found {row!r}")
        if "text" not in row and "segments" not in row:
            raise KeyError("text")
        _warn_of_unknown(self.path, frozenset(row) - _KNOWN - {self.group_key})
        written = str(row["audio_filepath"] if "audio" not in row and "audio_filepath" in row else row["audio"])
        group = speaker_of(row, self.group_key)
        official, text = split_official(_text(row.get("text")))
        start, end = _stretch(row)
        at = f"@{start:g}" if start else ""
        identifier = row.get("id") or f"{name}/{written}{at}"
        quality = row.get("quality")
        spoken = row.get("language") or (official if official != NO_SPEECH else None)
        segments = tuple(_segment(segment) for segment in row.get("segments") or ()) or split_marks(text, start)
        if not segments and row.get("words"):
            last = end if end is not None else seconds(row["words"][-1][-1])
            segments = (_segment({"start": start, "end": last, "text": text, "words": row["words"], "id": identifier}),)
        return Recording(
            id=str(identifier),
            audio=FileAudio(inside(home, written, self.allow_outside), _channel(row.get("channel"))),
            source=str(row.get("source") or name),
            group=f"{name}/{group or written}",
            language=named(str(spoken)) if spoken else language,
            text=text,
            segments=segments,
            start=start,
            end=end,
            context=_text(row.get("context") or row.get("prompt")),
            previous=_text(row.get("previous")),
            quality=None if quality is None else float(quality),
            split=_split(row.get("split")) or self.split,
            labelled=bool(row.get("labelled")),
        )


_KNOWN = frozenset(
    "audio audio_filepath text segments words start end offset duration id source language context prompt previous "
    "quality split channel labelled recognised".split()
) | frozenset(SPEAKER_KEYS)


def _check_kind(path: Path, first: str) -> None:
    """Raises UsageError if the first line shows that this is a file of another kind."""
    if first.lstrip().startswith("["):
        raise UsageError(
            f"manifest {path} is one JSON array: it needs one object per line (jq -c '.[]' {path.name} > lines.jsonl)"
        )
    if not first.lstrip().startswith("{"):
        raise UsageError(
            f"manifest {path}: line 1 is not a JSON object ({first.strip()[:40]!r}): a manifest has a line like "
            '{"audio": "a.wav", "text": "..."} for every utterance'
        )


@functools.cache
def _warn_of_unknown(path: Path, keys: frozenset[str]) -> None:
    """Warns once for each set of keys."""
    if keys:
        _log.warning(f"{path}: not used: {', '.join(sorted(keys))}")


def _text(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise TypeError(f"{str(value)[:60]} is not text")
    return value


def _channel(value: Any) -> int | None:
    if value is None or (type(value) is int and value >= 0):
        return value
    raise ValueError(f"channel {value!r} is not a number from 0")


def _stretch(row: dict[str, Any]) -> tuple[float, float | None]:
    """Start and end of a line in its file. A `duration` counts from `start` or `offset`, or from the start of the file,
    as in NeMo."""
    start = seconds(row.get("start") or row.get("offset") or 0.0)
    if row.get("end") is not None:
        return start, seconds(row["end"])
    if row.get("duration") is not None:
        return start, start + seconds(row["duration"])
    return start, None


def _split(value: Any) -> Split | None:
    """A split by its common names. Raises ValueError for others."""
    if value in (None, ""):
        return None
    if (found := _SPLITS.get(str(value).lower())) is None:
        raise ValueError(f"split {value!r} is not one of {', '.join(_SPLITS)}")
    return found


_SPLITS: dict[str, Split] = {
    "train": "train", "validation": "validation", "valid": "validation", "val": "validation", "dev": "validation",
    "test": "test",
}  # fmt: skip


def _same_file(line: Recording) -> tuple[object, ...]:
    """Key that lines of one recording share; a line that is not a part of a file has its own key."""
    if line.problem or line.segments or line.end is None:
        return (line.id, id(line))
    return (
        line.audio, line.group, line.source, line.language, line.context, line.previous, line.quality, line.split,
    )  # fmt: skip


def _segment(row: dict[str, Any]) -> Segment:
    """`words` are [word, start] or [word, start, end]; a missing end is the start of the next word."""
    end = seconds(row["end"])
    entries = row.get("words") or []
    words = []
    for index, entry in enumerate(entries):
        following = seconds(entries[index + 1][1]) if index + 1 < len(entries) else end
        words.append(Word(str(entry[0]), seconds(entry[1]), seconds(entry[2]) if len(entry) > 2 else following))
    return Segment(seconds(row["start"]), end, _text(row["text"]), tuple(words), str(row.get("id") or ""))
