"""Rows with an audio file and its text: what manifests and tables have in common. Columns are recognised by their usual
names, or named in the recipe."""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from caspi.config import Config
from caspi.corpus.sources.base import Source, checked, home_of, inside, seconds, split_marks, split_official
from caspi.corpus.utterance import FileAudio, Recording, Segment, Split, Word
from caspi.language import named
from caspi.language.codes import NO_SPEECH

_log = logging.getLogger(__name__)

Row = dict[str, Any]


class Columns(Config):
    """Columns, or fields, by what they hold. Without a name, a column is recognised by its usual names."""

    audio: str = ""
    """The audio file, relative to the folder of the source. Usual names: audio, audio_filepath, path, file, filename,
    file_name, audio_path, audio_file, wav, wav_path, wav_filename, clip, קובץ."""
    text: str = ""
    """The transcript. Usual names: text, sentence, transcript, transcription, טקסט, תמלול, משפט."""
    speaker: str = ""
    """The speaker or recording, which no split divides. Usual names: group, speaker, speaker_id, spk, spk_id,
    client_id, speaker_name, דובר. A row without one has its audio file as its group."""
    id: str = ""
    """The name of the utterance. Usual names: id, utt_id, utterance_id."""
    start: str = ""
    """Where the utterance begins in its file, in seconds. Usual names: start, offset, start_time."""
    end: str = ""
    """Where it ends, in seconds. Usual names: end, end_time."""
    duration: str = ""
    """How long it is, in seconds, from its start. Usual name: duration. A table without a column for the start is of
    whole files, and its durations are not used unless this names their column."""
    language: str = ""
    """The language. Usual names: language, lang, locale."""
    split: str = ""
    """train, validation or test. Usual name: split."""
    channel: str = ""
    """The channel of the file, from 0. Usual name: channel."""
    context: str = ""
    """Hotwords. Usual names: context, prompt."""
    previous: str = ""
    """The preceding text of the same recording. Usual name: previous."""
    quality: str = ""
    """A quality score. Usual name: quality."""


USUAL: dict[str, tuple[str, ...]] = {
    "audio": (
        "audio", "audio_filepath", "path", "file", "filename", "file_name", "audio_path", "audio_file", "wav",
        "wav_path", "wav_filename", "clip", "קובץ",
    ),
    "text": ("text", "sentence", "transcript", "transcription", "טקסט", "תמלול", "משפט"),
    "speaker": ("group", "speaker", "speaker_id", "spk", "spk_id", "client_id", "speaker_name", "דובר"),
    "id": ("id", "utt_id", "utterance_id"),
    "start": ("start", "offset", "start_time"),
    "end": ("end", "end_time"),
    "duration": ("duration",),
    "language": ("language", "lang", "locale"),
    "split": ("split",),
    "channel": ("channel",),
    "context": ("context", "prompt"),
    "previous": ("previous",),
    "quality": ("quality",),
}  # fmt: skip
_OTHERS = frozenset(("segments", "words", "source", "labelled", "recognised"))  # what only manifests have


def meanings(keys: frozenset[str], columns: Columns) -> dict[str, list[str]]:
    """The keys that may hold each meaning, best first: the named one, else those with usual names, in any case."""
    by_lower = {key.strip().lower(): key for key in sorted(keys, reverse=True)}
    found = {}
    for meaning, usual in USUAL.items():
        own = getattr(columns, meaning)
        found[meaning] = [own] if own else [by_lower[name] for name in usual if name in by_lower]
    return found


class RowSource(Source):
    """A file of rows, each with an audio file and its text."""

    path: Path
    """The file."""
    name: str = ""
    """The name of the source in the corpus. Without it, the name of the folder of the file."""
    columns: Columns = Columns()
    """The names of columns that are not the usual ones: `columns: {audio: recording, text: spoken}`."""
    allow_outside: bool = False
    """Whether audio files may be outside the folder of the file."""

    def recordings(self, language: str, skip: int = 0) -> Iterator[Recording]:
        return itertools.islice(self._joined(language), skip, None)

    def default_name(self) -> tuple[str, Path] | None:
        home = self.path.resolve().parent
        return None if self.name else (home.name, home)

    def count(self) -> int | None:
        return sum(1 for _ in self._joined("Hebrew"))

    def grouped_by(self) -> str | None:
        """The speaker column of the first row that has one, None if no row does."""
        for _, read in self.rows():
            with contextlib.suppress(ValueError, AttributeError, TypeError):
                row = read()
                if found := next((key for key in self._meanings(frozenset(row))["speaker"] if row.get(key)), None):
                    return found
        return None

    def rows(self) -> Iterator[tuple[int, Callable[[], Row]]]:
        """Every row with the number of its line. Reading it raises an error if it is not a row."""
        raise NotImplementedError

    def audio_path(self, home: str, written: str) -> Path:
        """Raises ValueError if it is outside of the folder."""
        return inside(home, written, self.allow_outside)

    def _meanings(self, keys: frozenset[str]) -> dict[str, list[str]]:
        return _cached_meanings(keys, self.columns)

    def _joined(self, language: str) -> Iterator[Recording]:
        """Neighbouring rows that are parts of one file become one recording, so that the file is read once."""
        for _, rows in itertools.groupby(self._recordings(language), key=_same_file):
            found = list(rows)
            if len(found) == 1 or found[0].end is None:
                yield from found
                continue
            segments = [Segment(row.start, row.end or 0.0, row.text, (), row.id) for row in found]
            yield replace(found[0], id=found[0].id, segments=segments, text="", start=0.0, end=None)

    def _recordings(self, language: str) -> Iterator[Recording]:
        home = home_of(self.path.parent)
        name = self.name or Path(home).name
        for number, read in self.rows():
            made = functools.partial(self._recording, read, name, language, home)
            yield checked(made, f"{name}/{self.path.name}, line {number}", name, language)

    def _recording(self, read: Callable[[], Row], name: str, language: str, home: str) -> Recording:
        row = read()
        keys = frozenset(row)
        meant = self._meanings(keys)

        def value(meaning: str) -> Any:
            return next((row[key] for key in meant[meaning] if row.get(key) not in (None, "")), None)

        if (written := value("audio")) is None:
            raise KeyError(next(iter(meant["audio"]), "audio"))
        if not keys & {*meant["text"], "segments"}:
            raise KeyError(self.columns.text or "text")
        _warn_of_unknown(self.path, keys - _OTHERS - {key for found in meant.values() for key in found})
        official, text = split_official(_text(value("text")))
        start, end = _stretch(value("start"), value("end"), value("duration"))
        at = f"@{start:g}" if start else ""
        identifier = value("id") or f"{name}/{written}{at}"
        spoken = value("language") or (official if official != NO_SPEECH else None)
        segments = tuple(_segment(segment) for segment in row.get("segments") or ()) or split_marks(text, start)
        if not segments and row.get("words"):
            last = end if end is not None else seconds(row["words"][-1][-1])
            segments = (_segment({"start": start, "end": last, "text": text, "words": row["words"], "id": identifier}),)
        quality = value("quality")
        return Recording(
            id=str(identifier),
            audio=FileAudio(self.audio_path(home, str(written)), _channel(value("channel"))),
            source=str(row.get("source") or name),
            group=f"{name}/{value('speaker') or written}",
            language=named(str(spoken)) if spoken else language,
            text=text,
            segments=segments,
            start=start,
            end=end,
            context=_text(value("context")),
            previous=_text(value("previous")),
            quality=None if quality is None else float(quality),
            split=_split(value("split")) or self.split,
            labelled=bool(row.get("labelled")),
        )


@functools.lru_cache(maxsize=1024)
def _cached_meanings(keys: frozenset[str], columns: Columns) -> dict[str, list[str]]:
    return meanings(keys, columns)


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
    if isinstance(value, str) and value.isdecimal():
        return int(value)
    raise ValueError(f"channel {value!r} is not a number from 0")


def _stretch(start: Any, end: Any, duration: Any) -> tuple[float, float | None]:
    """Start and end of a row in its file. A duration counts from the start, as in NeMo."""
    begin = seconds(start or 0.0)
    if end is not None:
        return begin, seconds(end)
    return begin, None if duration is None else begin + seconds(duration)


def _split(value: Any) -> Split | None:
    """A split by its common names. Raises ValueError for others."""
    if value in (None, ""):
        return None
    if (found := SPLITS.get(str(value).lower())) is None:
        raise ValueError(f"split {value!r} is not one of {', '.join(SPLITS)}")
    return found


SPLITS: dict[str, Split] = {
    "train": "train", "validation": "validation", "valid": "validation", "val": "validation", "dev": "validation",
    "test": "test",
}  # fmt: skip


def _same_file(row: Recording) -> tuple[object, ...]:
    """Key that rows of one recording share; a row that is not a part of a file has its own key."""
    if row.problem or row.segments or row.end is None:
        return (row.id, id(row))
    return (
        row.audio, row.group, row.source, row.language, row.context, row.previous, row.quality, row.split,
    )  # fmt: skip


def _segment(row: Row) -> Segment:
    """`words` are [word, start] or [word, start, end]; a missing end is the start of the next word."""
    end = seconds(row["end"])
    entries = row.get("words") or []
    words = []
    for index, entry in enumerate(entries):
        following = seconds(entries[index + 1][1]) if index + 1 < len(entries) else end
        words.append(Word(str(entry[0]), seconds(entry[1]), seconds(entry[2]) if len(entry) > 2 else following))
    return Segment(seconds(row["start"]), end, _text(row["text"]), tuple(words), str(row.get("id") or ""))
