"""Transcribes many files: writes each as soon as it is decoded, skips finished and unreadable ones."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path, PurePath
from typing import Any

from caspi.atomic_output import read_whole_lines, write_whole
from caspi.audio import AudioError, Seconds
from caspi.errors import CaspiError, UsageError
from caspi.inference.decoding_options import GREEDY
from caspi.inference.inputs import AudioInput
from caspi.inference.long_audio import LONGEST_PAUSE
from caspi.inference.reading import Ended, Piece, WindowReader
from caspi.inference.speech_detection import SpeechDetector
from caspi.inference.subtitles import EXTENSIONS, FORMATS, described
from caspi.inference.transcriber import Transcriber, TranscriptionOptions
from caspi.inference.transcripts import HeardWindow, TimedWindow, Transcript, with_timed_windows
from caspi.model.files import loaded_files

CUE_PAUSE: Seconds = 0.7  # between windows that are cues
_LIST_NAME = ".caspi-transcribe.jsonl"


@dataclass(frozen=True, slots=True)
class FileRequest:
    """Settings for transcribing files. formats: names of subtitles.FORMATS; aligner: a model that gives words their
    times; detector: of speech, by its name. diarize: whether speakers are named. longest: of a window; None: as long as
    the model takes."""

    model: str
    options: TranscriptionOptions
    formats: tuple[str, ...] = ("txt",)
    aligner: str | None = None
    detector: str = "none"
    diarize: bool = False
    longest: Seconds | None = None

    def settings(self) -> dict[str, Any]:
        """Everything that the texts depend on, and their files, as JSON has it."""
        options = asdict(self.options)
        decoding = options.pop("decoding")
        settings = {
            "model": self.model,
            "weights": _state_of_model(self.model),
            "formats": self.formats,
            "aligner": self.aligner,
            "detector": self.detector,
            "diarize": self.diarize,
            "longest": self.longest,
        }
        made: dict[str, Any] = json.loads(json.dumps(settings | options | decoding))
        return made


@dataclass(frozen=True, slots=True)
class FileResult:
    """The result for a recording. outputs: its texts by format; written: their files; error: why it has none; kept: an
    earlier call made them. warnings: about the audio and the transcript."""

    input: AudioInput
    outputs: dict[str, str] = field(default_factory=dict)
    written: tuple[Path, ...] = ()
    transcript: Transcript | None = None
    error: str = ""
    kept: bool = False
    warnings: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        fields = {
            "file": str(self.input.path or "-"), "name": str(self.input.name),
            "written": [str(path) for path in self.written], "error": self.error, "kept": self.kept,
            "warnings": list(self.warnings),
        }  # fmt: skip
        return fields | (described(self.transcript) if self.transcript else {})


class Outputs:
    """Texts in a folder, some per recording, and a list of their inputs and settings; writes nothing without a
    folder."""

    def __init__(self, request: FileRequest, folder: Path | None) -> None:
        """Raises UsageError if the folder has texts with other settings."""
        self._formats, self._folder = request.formats, folder
        self._list = folder / _LIST_NAME if folder else None
        self._done: dict[str, tuple[list[int], str]] = {}  # state of a recording, and the name of its texts
        if folder is None:
            return
        if folder.is_file():
            raise UsageError(f"--out {folder} is a file: give a folder")
        self._read_or_create_list(request.settings())

    def _read_or_create_list(self, settings: dict[str, Any]) -> None:
        assert self._list is not None  # only called with a folder
        rows = read_whole_lines(self._list)
        if not rows:
            self._list.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self._list, json.dumps(settings, ensure_ascii=False) + "\n")
            return
        first = _of_older_version(rows[0], settings)
        if first != settings:
            changed = next(key for key in {**settings, **first} if first.get(key) != settings.get(key))
            raise UsageError(
                f"--out {self._folder} contains transcripts made with {changed} = {first.get(changed)!r}; this run "
                f"uses {settings.get(changed)!r}: give another folder"
            )
        for row in rows[1:]:
            for key, entry in row.items():  # an earlier version had the state alone
                self._done[key] = (entry["state"], entry["name"]) if isinstance(entry, dict) else (entry, "")

    def own_names(self, inputs: Sequence[AudioInput]) -> list[AudioInput]:
        """The recordings with the names that they had in earlier runs; new ones with names that no other has."""
        taken = {name.casefold(): key for key, (_, name) in self._done.items() if name}
        found = []
        for one in inputs:
            _, known = self._done.get(one.key, (None, ""))
            with_end = [f"{one.name}{one.path.suffix}"] if one.path else []
            candidates = itertools.chain(
                [known or str(one.name)], with_end, (f"{one.name}-{number}" for number in itertools.count(2))
            )
            name = next(name for name in candidates if taken.get(name.casefold(), one.key) == one.key)
            taken[name.casefold()] = one.key
            found.append(replace(one, name=PurePath(name)))
        return found

    def paths(self, taken: AudioInput) -> tuple[Path, ...]:
        """The files of a recording, one per format."""
        if self._folder is None:
            return ()
        ends = (EXTENSIONS.get(name, name) for name in self._formats)
        return tuple(self._folder / taken.name.with_name(f"{taken.name.name}.{end}") for end in ends)

    def finished(self, taken: AudioInput) -> bool:
        """Whether a recording was transcribed before and has not changed since."""
        paths = self.paths(taken)
        known, _ = self._done.get(taken.key, (None, ""))
        return bool(paths) and known is not None and known == _state(taken) and all(path.is_file() for path in paths)

    def write(self, taken: AudioInput, texts: dict[str, str]) -> tuple[Path, ...]:
        """Writes the texts atomically."""
        if self._list is None:
            return ()
        for path, name in zip(self.paths(taken), self._formats, strict=True):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, texts[name])
        with self._list.open("a", encoding="utf-8") as list_file:
            entry = {"state": _state(taken), "name": str(taken.name)}
            list_file.write(json.dumps({taken.key: entry}, ensure_ascii=False) + "\n")
        return self.paths(taken)


def _state_of_model(model: str) -> str:
    """Changes when a folder gets another model; empty for what is no folder."""
    files = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in loaded_files(Path(model))]
    return hashlib.sha256(repr(files).encode()).hexdigest()[:16] if files else ""


def _of_older_version(settings: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """With the settings that did not exist yet."""
    if "format" in settings:
        settings = settings | {"formats": [settings["format"]]}
        del settings["format"]
    new = {"aligner": None, "detector": "none", "diarize": False, "longest": None, "weights": now["weights"]}
    return new | json.loads(json.dumps(asdict(GREEDY))) | settings


def _state(taken: AudioInput) -> list[int] | None:
    try:
        status = taken.path.stat() if taken.path else None
    except (OSError, ValueError):
        return None
    return [status.st_size, status.st_mtime_ns] if status else None


TimeWords = Callable[[Sequence[HeardWindow]], list[TimedWindow]]
NameSpeakers = Callable[[AudioInput, Transcript], Transcript]


@dataclass(frozen=True, slots=True)
class Models:
    """What transcribes, finds the times of words, and tells speakers apart."""

    transcriber: Transcriber
    time_words: TimeWords | None = None
    name_speakers: NameSpeakers | None = None


def transcribe(
    inputs: Sequence[AudioInput],
    request: FileRequest,
    outputs: Outputs,
    load: Callable[[], Models],
    detector: Callable[[], SpeechDetector],
) -> Iterator[FileResult]:
    """Results in the order of the inputs. Texts are written as soon as they are ready, in any order. The models are
    loaded if any recording is not finished. Raises UsageError if the request itself cannot be transcribed."""
    done = {
        number: FileResult(taken, written=outputs.paths(taken), kept=True)
        for number, taken in enumerate(inputs)
        if outputs.finished(taken)
    }
    todo = [number for number in range(len(inputs)) if number not in done]
    following = 0
    if todo:
        models = load()
        transcriber = models.transcriber
        running = _Running([inputs[number] for number in todo], request, outputs, models)
        longest = min(transcriber.max_window, request.longest or transcriber.max_window)
        with WindowReader(running.inputs, detector, longest, CUE_PAUSE if request.longest else LONGEST_PAUSE) as reader:
            while running.left:
                while transcriber.wants_more and running.unread:
                    if (piece := reader.next_piece(wait=not transcriber.working)) is None:
                        break
                    running.take(*piece)
                done |= {todo[number]: result for number, result in running.poll().items()}
                while following in done:
                    yield done.pop(following)
                    following += 1
    while following in done:
        yield done.pop(following)
        following += 1


@dataclass(slots=True)
class _File:
    """A recording that is being decoded. times: of the windows that are done, without their samples."""

    ticket: int
    notes: tuple[str, ...] = ()
    times: list[TimedWindow] = field(default_factory=list)


class _Running:
    """The recordings of one run, by their numbers."""

    def __init__(
        self,
        inputs: Sequence[AudioInput],
        request: FileRequest,
        outputs: Outputs,
        models: Models,
    ) -> None:
        self.inputs = inputs
        self.left = self.unread = len(inputs)
        self._request, self._outputs, self._transcriber = request, outputs, models.transcriber
        self._time_words, self._name_speakers = models.time_words, models.name_speakers
        self._files: dict[int, _File] = {}
        self._number_of: dict[int, int] = {}  # by ticket
        self._untimed: list[HeardWindow] = []
        self._ready: dict[int, FileResult] = {}

    def take(self, number: int, piece: Piece) -> None:
        """The next window of a recording, or its end, or the reason why it has none."""
        if isinstance(piece, AudioError):
            self.unread -= 1
            if (failed := self._files.pop(number, None)) is not None:
                self._transcriber.cancel(failed.ticket)
            self._ready[number] = FileResult(self.inputs[number], error=str(piece))
            return
        if number not in self._files:
            on_window = self._untimed.append if self._time_words else None
            self._files[number] = _File(self._transcriber.begin(self._request.options, on_window))
            self._number_of[self._files[number].ticket] = number
        file = self._files[number]
        if isinstance(piece, Ended):
            self.unread -= 1
            file.notes = piece.notes
            self._transcriber.end(file.ticket, piece.seconds)
        else:
            self._transcriber.add(file.ticket, piece)

    def poll(self) -> dict[int, FileResult]:
        """The results that are ready."""
        results = self._transcriber.poll()
        self._find_times()
        for ticket, result in results:
            number = self._number_of[ticket]
            file = self._files.pop(number)
            self._ready[number] = (
                FileResult(self.inputs[number], error=str(result))
                if isinstance(result, CaspiError)
                else self._finished(number, file, result)
            )
        ready, self._ready = self._ready, {}
        self.left -= len(ready)
        return ready

    def _find_times(self) -> None:
        """Of the words of the windows that have their texts, and drops their samples."""
        heard = [window for window in self._untimed if self._number_of[window.ticket] in self._files]
        self._untimed.clear()
        if self._time_words and heard:
            for window, timed in zip(heard, self._time_words(heard), strict=True):
                self._files[self._number_of[window.ticket]].times.append(timed)

    def _finished(self, number: int, file: _File, transcript: Transcript) -> FileResult:
        if self._time_words:
            transcript = with_timed_windows(transcript, file.times)
        taken = self.inputs[number]
        if self._name_speakers:
            transcript = self._name_speakers(taken, transcript)
        texts = {name: FORMATS[name](transcript, str(taken.name)) for name in self._request.formats}
        warnings = (*file.notes, *transcript.warnings())
        return FileResult(taken, texts, self._outputs.write(taken, texts), transcript, warnings=warnings)
