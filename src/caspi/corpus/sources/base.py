"""What every source has, and what several of them share."""

from __future__ import annotations

import hashlib
import itertools
import os
import re
from collections.abc import Iterator
from pathlib import Path

from caspi.audio import Seconds
from caspi.config import Config
from caspi.corpus.utterance import Recording, Segment, Split
from caspi.errors import UsageError


class Source(Config):
    """`split` puts the whole source into one split; else the hash of the group decides."""

    split: Split | None = None

    def recordings(self, language: str, skip: int = 0) -> Iterator[Recording]:
        """Recordings in an order that never changes, from number `skip` on. Raises UsageError naming file and line."""
        raise NotImplementedError

    def identity(self) -> str:
        """Changes when the input changes: what is prepared already is used again only while this stays."""
        raise NotImplementedError

    def count(self) -> int | None:
        """How many recordings, where that is cheap to know."""
        return None


_MARK = re.compile(r"<\|(\d+(?:\.\d+)?)\|>")
_OFFICIAL = re.compile(r"language\s+(\S+?)\s*<asr_text>", re.IGNORECASE)


def split_official(text: str) -> tuple[str | None, str]:
    """`language Hebrew<asr_text>words` of the official script to its language and its words."""
    match = _OFFICIAL.match(text)
    return (match[1], text[match.end() :]) if match else (None, text)


def split_marks(text: str) -> tuple[Segment, ...]:
    """`<|0.00|>one<|1.50|><|2.00|>two<|3.00|>` of Whisper's training data to timed segments.

    Empty where there are no marks, or where they do not say when every piece of text starts and ends.
    """
    if "<|" not in text:
        return ()
    parts = _MARK.split(text)  # text, time, text, time, ...
    if len(parts) < 3 or parts[0].strip() or parts[-1].strip():
        return ()
    times = [float(time) for time in parts[1::2]]
    found = [
        Segment(start, end, words.strip())
        for start, words, end in zip(times, parts[2:-1:2], times[1:], strict=False)
        if words.strip()
    ]
    in_order = all(a <= b for a, b in itertools.pairwise(times))
    return tuple(found) if in_order and all(segment.end > segment.start for segment in found) else ()


def inside(home: str, written: str, allow_outside: bool) -> Path:
    """The path `written` means, seen from the absolute folder `home`. Raises ValueError where it climbs out.

    By its spelling: asking the file system about every line of a long manifest takes a minute a million. A link inside
    the folder is its owner's doing, not the manifest's.
    """
    path = os.path.normpath(os.path.join(home, written))
    if not allow_outside and path != home and not path.startswith(home.rstrip(os.sep) + os.sep):
        raise ValueError(f"audio {written!r} lies outside {home}; set allow_outside: true to read it")
    return Path(path)


def home_of(path: Path) -> str:
    """The absolute folder, for `inside`."""
    return str(path.resolve())


def opened(path: Path, what: str) -> Iterator[tuple[int, str]]:
    """Numbered lines of a text file, read as they are asked for. Raises UsageError where it cannot be read.

    Lines end at a newline only: a transcript may hold U+2028, at which splitlines cuts.
    """
    try:
        with path.open(encoding="utf-8", newline="\n") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, line.rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"{what} {path}: {why}; check sources.path in the recipe") from error


def digest(path: Path, what: str) -> str:
    """SHA-256 of a file."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UsageError(f"{what} {path}: {error.strerror}; check sources.path in the recipe") from error


def listing(paths: list[Path], root: Path) -> str:
    """SHA-256 of names, sizes and times of files: what changes when one of them is replaced."""
    state = hashlib.sha256()
    for path in paths:
        status = path.stat()
        state.update(f"{path.relative_to(root)}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return state.hexdigest()


def seconds(value: object) -> Seconds:
    """A time in a source. Raises ValueError where it is none."""
    time = float(value)  # type: ignore[arg-type]
    if not 0 <= time < 1e9:
        raise ValueError(f"{value!r} is not a time in seconds")
    return time
