"""Transcribes many files: writes each as soon as it is decoded, skips finished and unreadable ones."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from caspi import audio
from caspi.atomic_output import read_jsonl, write_whole
from caspi.audio import AudioError
from caspi.errors import CaspiError, UsageError
from caspi.inference.decoding_options import GREEDY, DecodingOptions
from caspi.inference.subtitles import EXTENSIONS, FORMATS, described
from caspi.inference.transcriber import Recording, Transcriber, Transcript

_LIST_NAME = ".caspi-transcribe.jsonl"


@dataclass(frozen=True, slots=True)
class FileRequest:
    """Settings for transcribing files. format: a name of subtitles.FORMATS; times: whether phrases get times; aligner:
    a model that gives words their times."""

    model: str
    format: str = "txt"
    context: str = ""
    language: str | None = None
    times: bool = False
    decoding: DecodingOptions = GREEDY
    aligner: str | None = None

    def settings(self) -> dict[str, Any]:
        """Everything that the texts depend on, and their files."""
        fields = asdict(self)
        return fields | fields.pop("decoding")


@dataclass(frozen=True, slots=True)
class FileResult:
    """The result for a file. output: its text in the requested format; error: why it has none; kept: an earlier
    call made it. warnings: about the audio and the transcript."""

    file: Path
    output: str = ""
    written: Path | None = None
    transcript: Transcript | None = None
    error: str = ""
    kept: bool = False
    warnings: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        fields = {
            "file": str(self.file), "output": self.output, "written": str(self.written) if self.written else None,
            "error": self.error, "kept": self.kept, "warnings": list(self.warnings),
        }  # fmt: skip
        return fields | (described(self.transcript) if self.transcript else {})


class Outputs:
    """Texts in a folder, one per file, and a list of their inputs and settings; writes nothing without a folder."""

    def __init__(self, files: Sequence[Path], request: FileRequest, folder: Path | None) -> None:
        """Raises UsageError if two files would have the same name, or the folder has texts with other settings."""
        self._folder = folder
        self._paths: dict[Path, Path] = {}
        self._list = folder / _LIST_NAME if folder else None
        self._done: dict[str, list[int]] = {}
        if folder is None:
            return
        if folder.is_file():
            raise UsageError(f"--out {folder} is a file: give a folder")
        for file in files:
            path = folder / f"{file.stem}.{EXTENSIONS.get(request.format, request.format)}"
            if path in self._paths.values():
                raise UsageError(f"two files would both become {path}: transcribe them into different folders")
            self._paths[file] = path
        self._read_or_create_list(request)

    def _read_or_create_list(self, request: FileRequest) -> None:
        settings = request.settings()
        assert self._list is not None  # only called with a folder
        if self._list.is_file():
            first, *rows = read_jsonl(self._list)
            first = asdict(GREEDY) | {"aligner": None} | first  # of version 0.1, which had none of these
            if first != settings:
                changed = next(key for key in {**settings, **first} if first.get(key) != settings.get(key))
                raise UsageError(
                    f"--out {self._folder} contains transcripts made with {changed} = {first.get(changed)!r}; this run "
                    f"uses {settings.get(changed)!r}: give another folder"
                )
            self._done = {name: state for row in rows for name, state in row.items()}
        else:
            self._list.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self._list, json.dumps(settings, ensure_ascii=False) + "\n")

    def finished(self, file: Path) -> Path | None:
        """The path of the text of a file that was transcribed before and has not changed since."""
        path = self._paths.get(file)
        return path if path and path.is_file() and self._done.get(str(file.resolve())) == _state(file) else None

    def write(self, file: Path, text: str) -> Path | None:
        """Writes the text atomically."""
        if self._list is None:
            return None
        path = self._paths[file]
        write_whole(path, text)
        with self._list.open("a", encoding="utf-8") as list_file:
            list_file.write(json.dumps({str(file.resolve()): _state(file)}, ensure_ascii=False) + "\n")
        return path


def _state(file: Path) -> list[int] | None:
    try:
        status = file.stat()
    except (OSError, ValueError):
        return None
    return [status.st_size, status.st_mtime_ns]


TimeWords = Callable[[Transcript, np.ndarray], Transcript]


def transcribe(
    files: Sequence[Path],
    request: FileRequest,
    outputs: Outputs,
    load: Callable[[], Transcriber],
    load_timer: Callable[[], TimeWords] | None = None,
) -> Iterator[FileResult]:
    """Results in the order of the files. Texts are written as soon as they are ready, in any order. The first file that
    needs the models loads them. load_timer: of what gives the words of a transcript their times, from its samples.
    Raises UsageError if the request itself cannot be transcribed."""
    running: _Running | None = None
    done: dict[int, FileResult] = {}
    following = 0
    for index, file in enumerate(files):
        if (path := outputs.finished(file)) is not None:
            done[index] = FileResult(file, path.read_text(encoding="utf-8"), path, kept=True)
        else:
            try:
                samples, notes = audio.read(file)
            except AudioError as error:
                done[index] = FileResult(file, error=str(error))
            else:
                running = running or _Running(load(), request, outputs, load_timer() if load_timer else None)
                running.add(index, file, samples, [audio.MEANING[note] for note in notes])
        while running and (not running.wants_more or (index == len(files) - 1 and running.pending)):
            done |= running.poll()
        while following in done:
            yield done.pop(following)
            following += 1


class _Running:
    """Files that are being decoded, by their tickets."""

    def __init__(
        self, transcriber: Transcriber, request: FileRequest, outputs: Outputs, time_words: TimeWords | None
    ) -> None:
        self._transcriber, self._request, self._outputs = transcriber, request, outputs
        self._time_words = time_words
        self._files: dict[int, tuple[int, Path, np.ndarray, list[str]]] = {}

    @property
    def wants_more(self) -> bool:
        return self._transcriber.wants_more

    @property
    def pending(self) -> bool:
        return bool(self._files)

    def add(self, index: int, file: Path, samples: np.ndarray, notes: list[str]) -> None:
        """notes: warnings about the audio."""
        asked = self._request
        recording = Recording(samples, asked.language, asked.context, times=asked.times, decoding=asked.decoding)
        self._files[self._transcriber.submit(recording)] = (index, file, samples, notes)

    def poll(self) -> dict[int, FileResult]:
        """The results that are ready, by the index of their file."""
        found = {}
        for ticket, result in self._transcriber.poll():
            index, file, samples, notes = self._files.pop(ticket)
            if isinstance(result, CaspiError):
                found[index] = FileResult(file, error=str(result))
                continue
            transcript = self._time_words(result, samples) if self._time_words else result
            text = FORMATS[self._request.format](transcript)
            warnings = (*notes, *transcript.warnings())
            found[index] = FileResult(file, text, self._outputs.write(file, text), transcript, warnings=warnings)
        return found
