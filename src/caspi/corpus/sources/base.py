"""The base class of sources, and helpers that several sources share."""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from pydantic import Field

from caspi.audio import Seconds
from caspi.config import Config, Unit
from caspi.corpus.utterance import BytesAudio, FileAudio, Recording, Segment, Split
from caspi.errors import UsageError


class Source(Config):
    """What all kinds of sources have in common."""

    split: Split | None = None
    """Puts the whole source into this split. Without it, every group is put into a split by `corpus.splits`."""
    channel: Annotated[int | None, Unit("channel number")] = Field(None, ge=0)
    """The channel to read from every file, counted from 0, if the source names none. Without it, the mean of all
    channels."""

    def heard(self, language: str, skip: int = 0) -> Iterator[Recording]:
        """`recordings`, with the channel that the recipe sets."""
        for recording in self.recordings(language, skip):
            audio = recording.audio
            if self.channel is not None and isinstance(audio, FileAudio | BytesAudio) and audio.channel is None:
                yield replace(recording, audio=replace(audio, channel=self.channel))
            else:
                yield recording

    def recordings(self, language: str, skip: int = 0) -> Iterator[Recording]:
        """Recordings in a fixed order, from number `skip` on. Raises UsageError naming file and line."""
        raise NotImplementedError

    def identity(self) -> str:
        """A string that changes when the input or its audio files change; prepared data is reused only while it stays.

        Compares the sizes and times of files; a million files take half a minute.
        """
        state = hashlib.sha256()
        for recording in self.recordings("Hebrew"):
            state.update(repr(replace(recording, audio=None)).encode("utf-8", "replace"))  # type: ignore[arg-type]
            state.update(repr(_file_state(recording.audio)).encode("utf-8", "replace"))
        return state.hexdigest()

    def default_name(self) -> tuple[str, Path] | None:
        """The name derived from the path, and that path; None if the recipe or a catalogue gives the name."""
        return None

    @property
    def label(self) -> str:
        """Its name in messages: the name, or the kind if it has no name."""
        found = self.default_name()
        return str(getattr(self, "name", "")) or (found[0] if found else type(self).__name__.removesuffix("Source"))

    def count(self) -> int | None:
        """The number of recordings, if it is cheap to get."""
        return None


_MARK = re.compile(r"<\|(\d+(?:\.\d+)?)\|>")
_OFFICIAL = re.compile(r"language\s+(\S+?)\s*<asr_text>", re.IGNORECASE)


def split_official(text: str) -> tuple[str | None, str]:
    """Splits `language Hebrew<asr_text>words` of the official script into its language and its words."""
    match = _OFFICIAL.match(text)
    return (match[1], text[match.end() :]) if match else (None, text)


def split_marks(text: str, start: Seconds = 0.0) -> tuple[Segment, ...]:
    """`<|0.00|>one<|1.50|><|2.00|>two<|3.00|>` of Whisper's training data to timed segments.

    start: start time of the text in its recording; marks are relative to it. Empty if there are no marks, or if they
    do not give the start and end of every piece of text.
    """
    if "<|" not in text:
        return ()
    parts = _MARK.split(text)  # text, time, text, time, ...
    if len(parts) < 3 or parts[0].strip() or parts[-1].strip():
        return ()
    times = [start + float(time) for time in parts[1::2]]
    found = [
        Segment(first, last, words.strip())
        for first, words, last in zip(times, parts[2:-1:2], times[1:], strict=False)
        if words.strip()
    ]
    in_order = all(a <= b for a, b in itertools.pairwise(times))
    return tuple(found) if in_order and all(segment.end > segment.start for segment in found) else ()


def inside(home: str, written: str, allow_outside: bool) -> Path:
    """The path `written`, relative to the absolute folder `home`. Raises ValueError if it is outside of it.

    Checks only the spelling: asking the file system takes a minute per million lines. Links inside the folder are
    allowed, because the folder's owner made them, not the manifest.
    """
    if written.startswith("file://"):
        written = urllib.parse.unquote(written.removeprefix("file://"))
    path = os.path.normpath(os.path.join(home, written))
    if not allow_outside and path != home and not path.startswith(home.rstrip(os.sep) + os.sep):
        raise ValueError(f"audio {written!r} lies outside {home}; set allow_outside: true to read it")
    return Path(path)


def home_of(path: Path) -> str:
    """The absolute folder, for `inside`."""
    return str(path.resolve())


def _file_state(audio: object) -> tuple[str, int, int]:
    path = getattr(audio, "path", None)
    try:
        status = path.stat() if path is not None else None
    except (OSError, ValueError):
        status = None
    return (str(path), status.st_size, status.st_mtime_ns) if status else (str(path), -1, -1)


# Exceptions that a bad row may cause; all others are bugs of caspi and are not caught.
_BAD = (ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError, RecursionError)


def checked(read: Callable[[], Recording], where: str, source: str, language: str) -> Recording:
    """The recording of a row, or a recording that states the problem, so that a bad row does not stop the run."""
    try:
        recording = read()
        "".join(_texts(recording)).encode()  # a lone surrogate is not a character
        return recording
    except UnicodeEncodeError as error:
        problem = "not UTF-8: is it windows-1255 (iconv -f windows-1255 -t utf-8; of a table, encoding: windows-1255)?"
        if not "\udc80" <= error.object[error.start] <= "\udcff":
            problem = "half a character (a lone surrogate)"
        return _unusable(f"{where}: {problem}", where, source, language)
    except _BAD as error:
        problem = f"no field {error}" if isinstance(error, KeyError) else str(error) or type(error).__name__
        return _unusable(f"{where}: {problem}", where, source, language)


def _unusable(problem: str, where: str, source: str, language: str) -> Recording:
    printable, named = (text.encode("utf-8", "replace").decode() for text in (problem, where))
    return Recording(named, BytesAudio(b""), source, named, language, problem=printable)


def _texts(recording: Recording) -> Iterator[str]:
    yield from (recording.id, recording.text, recording.group, recording.context, recording.previous)
    yield from (str(getattr(recording.audio, "path", "")), recording.language, recording.source)
    for segment in recording.segments:
        yield from (segment.text, segment.id, *(word.text for word in segment.words))


def opened(path: Path, what: str) -> Iterator[tuple[int, str]]:
    """Numbered lines of a text file, read lazily. Raises UsageError if it cannot be read.

    Lines end only at a newline: a transcript may contain U+2028, where splitlines would split. A line that is not UTF-8
    has its bytes as surrogates, which `checked` refuses.
    """
    try:
        with path.open("rb") as binary:
            if binary.read(2) in (b"\xff\xfe", b"\xfe\xff"):
                raise UsageError(f"{what} {path} is UTF-16: iconv -f utf-16 -t utf-8 {path.name} > utf8-{path.name}")
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="\n") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, line.rstrip("\r\n")
    except OSError as error:
        raise UsageError(f"{what} {path}: {error.strerror}; check sources.path in the recipe") from error


def listing(paths: list[Path], root: Path) -> str:
    """SHA-256 of names, sizes and times of files; it changes when one of them is replaced."""
    state = hashlib.sha256()
    for path in paths:
        status = path.stat()
        state.update(f"{path.relative_to(root)}\0{status.st_size}\0{status.st_mtime_ns}\n".encode("utf-8", "replace"))
    return state.hexdigest()


def seconds(value: object) -> Seconds:
    """A time in a source. Raises ValueError if the value is not a time."""
    time = float(value)  # type: ignore[arg-type]
    if not 0 <= time < 1e9:
        raise ValueError(f"{value!r} is not a time in seconds")
    return time


def joined_groups(speakers_of: dict[str, set[str]]) -> dict[str, str]:
    """The group of every recording: its speaker; a recording with several speakers merges them into one group.

    Groups are named after speakers if there are any, so that another recording of the same speaker changes no name.
    """
    parent: dict[str, str] = {}

    def root(key: str) -> str:
        parent.setdefault(key, key)
        while parent[key] != key:
            parent[key] = key = parent[parent[key]]
        return key

    for speakers in speakers_of.values():
        for speaker in sorted(speakers)[1:]:
            low, high = sorted((root(min(speakers)), root(speaker)))
            parent[high] = low
    return {recording: root(min(found)) if found else recording for recording, found in speakers_of.items()}
