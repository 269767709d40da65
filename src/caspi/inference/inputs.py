"""What `transcribe` is given, as a list of audio files: files, folders, patterns, manifests, standard input."""

from __future__ import annotations

import glob
import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any

from caspi.atomic_output import read_jsonl
from caspi.audio import Seconds
from caspi.errors import UsageError

_log = logging.getLogger(__name__)

STANDARD_INPUT = "-"
_SUFFIXES = frozenset(
    ".3gp .aac .aif .aiff .amr .ape .au .avi .caf .dts .flac .m4a .m4b .mka .mkv .mov .mp2 .mp3 .mp4 .mpeg .mpg .oga "
    ".ogg .opus .rf64 .spx .tta .voc .w64 .wav .webm .wma .wmv .wv".split()
)  # of audio and video: what is taken from a folder


@dataclass(frozen=True, slots=True)
class Span:
    """A part of a recording in seconds; until None: to its end."""

    start: Seconds = 0.0
    until: Seconds | None = None


WHOLE = Span()


@dataclass(frozen=True, slots=True)
class AudioInput:
    """A recording to transcribe. path: None: standard input. name: of its outputs, without the end; may have folders.
    channel: from 0; None: their mean."""

    path: Path | None
    name: PurePath
    span: Span = WHOLE
    channel: int | None = None

    @property
    def shown(self) -> str:
        """For people."""
        part = "" if self.span == WHOLE else f" from {self.span.start:g} s"
        return f"{self.path or 'standard input'}{part}"

    @property
    def key(self) -> str:
        """The same for the same recording in every run."""
        where = self.path.resolve() if self.path else STANDARD_INPUT
        return str(where) if (self.span, self.channel) == (WHOLE, None) else f"{where} {self.span} {self.channel}"


def audio_inputs(given: Sequence[str], span: Span = WHOLE, channel: int | None = None) -> list[AudioInput]:
    """All recordings that are meant, each once, in order, with names that differ. span, channel: of all that do not say
    it themselves, as lines of a manifest do. Raises UsageError for what means none."""
    found: dict[str, AudioInput] = {}
    for text in given:
        for taken in _meant(text):
            asked = replace(
                taken,
                span=span if taken.span == WHOLE else taken.span,
                channel=channel if taken.channel is None else taken.channel,
            )
            found.setdefault(asked.key, asked)
    return _with_own_names(list(found.values()))


def _meant(text: str) -> Iterator[AudioInput]:
    path = Path(text)
    if text == STANDARD_INPUT:
        yield AudioInput(None, PurePath("stdin"))
    elif "://" in text:
        raise UsageError(f"{text}: an address; only files are read: download it first")
    elif path.is_dir():
        yield from _in_folder(path)
    elif path.suffix == ".jsonl":
        yield from _in_manifest(path)
    elif not path.exists() and glob.has_magic(text):
        matching = sorted(Path(name) for name in glob.glob(text, recursive=True) if Path(name).is_file())
        if not matching:
            raise UsageError(f"{text}: no file has such a name")
        yield from (AudioInput(file, PurePath(file.stem)) for file in matching)
    else:
        yield AudioInput(path, PurePath(path.stem))


def _in_folder(folder: Path) -> Iterator[AudioInput]:
    files = sorted(
        Path(parent, name) for parent, _, names in os.walk(folder) for name in names if not name.startswith(".")
    )
    audio = [file for file in files if file.suffix.lower() in _SUFFIXES]
    if not audio:
        raise UsageError(f"{folder}: no audio file in it, by the ends of their names")
    if len(audio) < len(files):
        other = next(file for file in files if file.suffix.lower() not in _SUFFIXES)
        _log.info(
            f"{folder}: {len(files) - len(audio)} of {len(files)} files are not audio by their names: {other.name}"
        )
    yield from (AudioInput(file, file.relative_to(folder).with_suffix("")) for file in audio)


def _in_manifest(manifest: Path) -> Iterator[AudioInput]:
    """Lines with `audio`, and where a line is a part of a file `start` and `end`, or `offset` and `duration`; `id`
    names the outputs."""
    try:
        lines = read_jsonl(manifest)
    except (OSError, ValueError) as error:
        raise UsageError(f"{manifest}: {error}") from error
    if not lines:
        raise UsageError(f"{manifest}: no line")
    for number, line in enumerate(lines, 1):
        yield _of_line(line, manifest.parent, f"{manifest}, line {number}")


def _of_line(line: Any, home: Path, where: str) -> AudioInput:
    audio = (line.get("audio") or line.get("audio_filepath")) if isinstance(line, dict) else None
    if not isinstance(audio, str):
        raise UsageError(f"{where}: no audio: give a path, relative to the manifest")
    if "://" in audio:
        raise UsageError(f"{where}: {audio} is an address: download it first")
    try:
        start = float(line.get("start", line.get("offset", 0.0)) or 0.0)
        until = line.get("end")
        if until is None and line.get("duration") is not None:
            until = start + float(line["duration"])
        span = checked_span(start, None if until is None else float(until))
        channel = None if line.get("channel") is None else int(line["channel"])
    except (TypeError, ValueError) as error:
        raise UsageError(f"{where}: {error}") from error
    name = PurePath(str(line["id"]).replace("/", "-")) if line.get("id") else PurePath(PurePath(audio).stem)
    return AudioInput(home / audio, name, span, channel)


def checked_span(start: Seconds, until: Seconds | None) -> Span:
    """Raises ValueError if there is nothing in it."""
    if not 0 <= start < (float("inf") if until is None else until):
        raise ValueError(f"a part from {start:g} to {until:g} s has no audio" if until is not None else "start below 0")
    return Span(start, until)


def _with_own_names(inputs: list[AudioInput]) -> list[AudioInput]:
    """Where two have the same name, both get more of their paths: their folders, then the end of their file's name,
    then their number."""
    for rename in (_with_folders, _with_suffixes, _with_numbers):
        counts = Counter(str(one.name).casefold() for one in inputs)
        clashing = [number for number, one in enumerate(inputs) if counts[str(one.name).casefold()] > 1]
        for number, name in zip(clashing, rename([inputs[number] for number in clashing]), strict=True):
            inputs[number] = replace(inputs[number], name=name)
    return inputs


def _with_folders(inputs: Sequence[AudioInput]) -> list[PurePath]:
    parents = [one.path.resolve().parent for one in inputs if one.path]
    shared = os.path.commonpath(parents) if parents else ""
    return [
        PurePath(one.path.resolve().relative_to(shared)).with_suffix("") if one.path and one.span == WHOLE else one.name
        for one in inputs
    ]


def _with_suffixes(inputs: Sequence[AudioInput]) -> list[PurePath]:
    """Parts of a file keep their names: they get numbers."""
    return [
        one.name.with_name(one.name.name + one.path.suffix) if one.path and one.span == WHOLE else one.name
        for one in inputs
    ]


def _with_numbers(inputs: Sequence[AudioInput]) -> list[PurePath]:
    return [one.name.with_name(f"{one.name.name}-{number}") for number, one in enumerate(inputs, 1)]
