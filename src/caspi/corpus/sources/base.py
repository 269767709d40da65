"""What every source has, and what several of them share."""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import Field

from caspi.audio import Seconds
from caspi.config import Config
from caspi.corpus.utterance import BytesAudio, FileAudio, Recording, Segment, Split
from caspi.errors import UsageError


class Source(Config):
    """`split` puts the whole source into one split; else the hash of the group decides. channel: of every file, from 0,
    where the source itself names none; by default the mean of all."""

    split: Split | None = None
    channel: int | None = Field(None, ge=0)

    def heard(self, language: str, skip: int = 0) -> Iterator[Recording]:
        """`recordings`, of the channel that the recipe asks for."""
        for recording in self.recordings(language, skip):
            audio = recording.audio
            if self.channel is not None and isinstance(audio, FileAudio | BytesAudio) and audio.channel is None:
                yield replace(recording, audio=replace(audio, channel=self.channel))
            else:
                yield recording

    def recordings(self, language: str, skip: int = 0) -> Iterator[Recording]:
        """Recordings in an order that never changes, from number `skip` on. Raises UsageError naming file and line."""
        raise NotImplementedError

    def identity(self) -> str:
        """Changes when the input changes, audio files included: what is prepared is used again only while this stays.

        Sizes and times of files tell; a million take half a minute.
        """
        state = hashlib.sha256()
        for recording in self.recordings("Hebrew"):
            state.update(repr(replace(recording, audio=None)).encode("utf-8", "replace"))  # type: ignore[arg-type]
            state.update(repr(_file_state(recording.audio)).encode("utf-8", "replace"))
        return state.hexdigest()

    def default_name(self) -> tuple[str, Path] | None:
        """The name it takes from its place, and that place; None where the recipe, or a catalogue, names it."""
        return None

    @property
    def label(self) -> str:
        """What messages call it: its name, or its kind where it has none."""
        found = self.default_name()
        return str(getattr(self, "name", "")) or (found[0] if found else type(self).__name__.removesuffix("Source"))

    def count(self) -> int | None:
        """How many recordings, where that is cheap to know."""
        return None


SPEAKER_KEYS = ("group", "speaker", "speaker_id", "spk", "spk_id", "client_id", "speaker_name")


def speaker_of(row: dict[str, Any], key: str) -> str:
    """The recording or speaker of a row: of the field `key`, or of the first there is that people name speakers by.
    Empty where it has none."""
    found = next((row[name] for name in ((key,) if key else SPEAKER_KEYS) if row.get(name) not in (None, "")), "")
    return str(found)


_MARK = re.compile(r"<\|(\d+(?:\.\d+)?)\|>")
_OFFICIAL = re.compile(r"language\s+(\S+?)\s*<asr_text>", re.IGNORECASE)


def split_official(text: str) -> tuple[str | None, str]:
    """`language Hebrew<asr_text>words` of the official script to its language and its words."""
    match = _OFFICIAL.match(text)
    return (match[1], text[match.end() :]) if match else (None, text)


def split_marks(text: str, start: Seconds = 0.0) -> tuple[Segment, ...]:
    """`<|0.00|>one<|1.50|><|2.00|>two<|3.00|>` of Whisper's training data to timed segments.

    start: where in its recording the text starts; marks count from there. Empty where there are no marks, or where
    they do not say when every piece of text starts and ends.
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
    """The path `written` means, seen from the absolute folder `home`. Raises ValueError where it climbs out.

    By its spelling: asking the file system about every line of a long manifest takes a minute a million. A link inside
    the folder is its owner's doing, not the manifest's.
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


# What a row may do to whoever reads it; the rest is a defect of ours and is not caught.
_BAD = (ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError, RecursionError)


def checked(read: Callable[[], Recording], where: str, source: str, language: str) -> Recording:
    """The recording a row describes, or one that says what is wrong with the row: one bad row stops nobody."""
    try:
        recording = read()
        "".join(_texts(recording)).encode()  # half of a surrogate pair is no character
        return recording
    except UnicodeEncodeError as error:
        problem = "not UTF-8: is it windows-1255 (iconv -f windows-1255 -t utf-8)?"
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
    """Numbered lines of a text file, read as they are asked for. Raises UsageError where it cannot be read.

    Lines end at a newline only: a transcript may hold U+2028, at which splitlines cuts. A line that is not UTF-8 comes
    out with its bytes as surrogates, which `checked` refuses.
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
    """SHA-256 of names, sizes and times of files: what changes when one of them is replaced."""
    state = hashlib.sha256()
    for path in paths:
        status = path.stat()
        state.update(f"{path.relative_to(root)}\0{status.st_size}\0{status.st_mtime_ns}\n".encode("utf-8", "replace"))
    return state.hexdigest()


def seconds(value: object) -> Seconds:
    """A time in a source. Raises ValueError where it is none."""
    time = float(value)  # type: ignore[arg-type]
    if not 0 <= time < 1e9:
        raise ValueError(f"{value!r} is not a time in seconds")
    return time


def joined_groups(speakers_of: dict[str, set[str]]) -> dict[str, str]:
    """The group of every recording: its speaker; recordings with several speakers join those to one group.

    Named after speakers where there are any, so that another recording of the same speaker changes no name.
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
