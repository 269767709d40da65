"""Transcribes many files: writes each as soon as it is decoded, skips finished ones, continues after bad ones."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from caspi import audio
from caspi.atomic_output import read_jsonl, write_whole
from caspi.audio import SAMPLE_RATE, AudioError, Seconds
from caspi.errors import UsageError
from caspi.inference.subtitles import FORMATS
from caspi.inference.transcriber import Recording, Transcriber, Transcript

_TOGETHER: Seconds = 240.0  # length of the files that are decoded together
_DONE = ".caspi-transcribe.jsonl"


@dataclass(frozen=True, slots=True)
class FileRequest:
    """How files are transcribed. format: a name of subtitles.FORMATS; times: of phrases."""

    model: str
    format: str = "txt"
    context: str = ""
    language: str | None = None
    times: bool = False


@dataclass(frozen=True, slots=True)
class FileResult:
    """The result for a file. output: its text in the requested format; error: why there is none; kept: it is from an
    earlier call. warnings: about the audio and the transcript."""

    file: Path
    output: str = ""
    written: Path | None = None
    transcript: Transcript | None = None
    error: str = ""
    kept: bool = False
    warnings: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        found = {
            "file": str(self.file), "output": self.output, "written": str(self.written) if self.written else None,
            "error": self.error, "kept": self.kept, "warnings": list(self.warnings),
        }  # fmt: skip
        return found | (asdict(self.transcript) if self.transcript else {})


class Outputs:
    """Texts in a folder, one per file, and a list of their inputs and settings; writes nothing without a folder."""

    def __init__(self, files: Sequence[Path], request: FileRequest, folder: Path | None) -> None:
        """Raises UsageError if two files would have the same name, or the folder has texts with other settings."""
        self._folder = folder
        self._paths: dict[Path, Path] = {}
        self._list = folder / _DONE if folder else None
        self._done: dict[str, list[int]] = {}
        if folder is None:
            return
        if folder.is_file():
            raise UsageError(f"--out {folder} is a file: give a folder")
        for file in files:
            path = folder / f"{file.stem}.{request.format}"
            if path in self._paths.values():
                raise UsageError(f"two files would both become {path}: transcribe them into different folders")
            self._paths[file] = path
        self._begin(request)

    def _begin(self, request: FileRequest) -> None:
        made = asdict(request)
        assert self._list is not None  # only called with a folder
        if self._list.is_file():
            first, *rows = read_jsonl(self._list)
            if first != made:
                changed = next(key for key in made if first.get(key) != made[key])
                raise UsageError(
                    f"--out {self._folder} has texts made with {changed} = {first.get(changed)!r}, not "
                    f"{made[changed]!r}: give another folder"
                )
            self._done = {name: state for row in rows for name, state in row.items()}
        else:
            self._list.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self._list, json.dumps(made, ensure_ascii=False) + "\n")

    def kept(self, file: Path) -> Path | None:
        """The text of a file that was transcribed before and has not changed since."""
        path = self._paths.get(file)
        return path if path and path.is_file() and self._done.get(str(file.resolve())) == _state(file) else None

    def write(self, file: Path, text: str) -> Path | None:
        """Writes the text atomically."""
        if self._list is None:
            return None
        path = self._paths[file]
        write_whole(path, text)
        with self._list.open("a", encoding="utf-8") as listed:
            listed.write(json.dumps({str(file.resolve()): _state(file)}, ensure_ascii=False) + "\n")
        return path


def _state(file: Path) -> list[int] | None:
    try:
        status = file.stat()
    except (OSError, ValueError):
        return None
    return [status.st_size, status.st_mtime_ns]


def transcribe(
    files: Sequence[Path], request: FileRequest, outputs: Outputs, load: Callable[[], Transcriber]
) -> Iterator[FileResult]:
    """Results as soon as they are ready, in the order of the files. The first file that needs the model loads it."""
    transcriber: Transcriber | None = None
    waiting: list[tuple[Path, Any, list[str]]] = []
    seconds = 0.0
    for place, file in enumerate(files):
        if (path := outputs.kept(file)) is not None:
            yield FileResult(file, path.read_text(encoding="utf-8"), path, kept=True)
        else:
            try:
                samples, notes = audio.read(file)
            except AudioError as error:
                yield FileResult(file, error=str(error))
            else:
                transcriber = transcriber or load()
                waiting.append((file, samples, [audio.MEANING[note] for note in notes]))
                seconds += len(samples) / SAMPLE_RATE
        if transcriber and waiting and (seconds >= _TOGETHER or place == len(files) - 1):
            yield from _decoded(waiting, request, outputs, transcriber)
            waiting, seconds = [], 0.0


def _decoded(
    waiting: Sequence[tuple[Path, Any, list[str]]], request: FileRequest, outputs: Outputs, transcriber: Transcriber
) -> Iterator[FileResult]:
    recordings = [
        Recording(samples, request.language, request.context, times=request.times) for _, samples, _ in waiting
    ]
    found = transcriber.transcribe(recordings)
    for (file, _, notes), transcript in zip(waiting, found, strict=True):
        text = FORMATS[request.format](transcript)
        warnings = (*notes, *transcript.warnings())
        yield FileResult(file, text, outputs.write(file, text), transcript, warnings=warnings)
