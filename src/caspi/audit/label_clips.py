"""The clips that are labelled: those of a corpus, or of audio files, which are cut in their pauses."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from caspi import audio
from caspi.audio import SAMPLE_RATE, AudioError, Seconds
from caspi.corpus.read_ahead import read_ahead
from caspi.corpus.sources.folder import audio_files
from caspi.corpus.store import Corpus
from caspi.corpus.utterance import Utterance
from caspi.errors import UsageError
from caspi.inference.long_audio import windows
from caspi.reporting.report import fingerprint

_FILES_AHEAD = 2


@dataclass(frozen=True, slots=True)
class Clip:
    """An utterance, whose text is not read, and its samples, float32 [n] at 16 kHz."""

    utterance: Utterance
    samples: np.ndarray


@dataclass(frozen=True, slots=True)
class CorpusClips(Iterable[Clip]):
    """Those of a split, in order."""

    corpus: Corpus
    unreadable: Mapping[Path, AudioError] = field(default_factory=dict)

    @property
    def count(self) -> int | None:
        return len(self.corpus)

    @property
    def identity(self) -> str:
        """Changes when the clips do."""
        return fingerprint(self.corpus.folder)

    def __iter__(self) -> Iterator[Clip]:
        self.corpus.find_audio()
        for row, samples in enumerate(read_ahead(self.corpus.samples, range(len(self.corpus)))):
            yield Clip(self.corpus.utterance(row), samples)


@dataclass(frozen=True, slots=True)
class FileClips(Iterable[Clip]):
    """Those of audio files, each no longer than `longest`. unreadable: files that could not be decoded, by path, known
    after the first pass."""

    files: Sequence[tuple[Path, str]]  # with the name of each, which its clips' ids begin with
    language: str
    longest: Seconds
    unreadable: dict[Path, AudioError] = field(default_factory=dict)

    @property
    def count(self) -> int | None:
        """Not known before they are cut."""
        return None

    @property
    def identity(self) -> str:
        """Changes when the clips do."""
        states = [(name, path.stat().st_size, path.stat().st_mtime_ns) for path, name in self.files]
        return json.dumps([self.language, self.longest, states])

    @classmethod
    def of(cls, paths: Sequence[Path], language: str, longest: Seconds) -> FileClips:
        """Files, and all audio files in folders. Raises UsageError if one does not exist, or two have the same name."""
        files: list[tuple[Path, str]] = []
        for path in paths:
            if path.is_dir():
                files += [(file, f"{path.resolve().name}/{file.relative_to(path)}") for file in audio_files(path)]
            elif path.is_file():
                files.append((path, path.name))
            else:
                raise UsageError(f"{path}: no such file or folder")
        [(name, times)] = Counter(name for _, name in files).most_common(1) or [("", 0)]
        if times > 1:
            raise UsageError(f"{times} files are called {name}: give the folder that all are in")
        if not files:
            raise UsageError(f"no audio file in {', '.join(map(str, paths))}")
        return cls(files, language, longest)

    def __iter__(self) -> Iterator[Clip]:
        for (path, name), samples in zip(self.files, read_ahead(self._read, self.files, _FILES_AHEAD), strict=True):
            if isinstance(samples, AudioError):
                self.unreadable[path] = samples
                continue
            cuts = windows(samples, self.longest)
            for first, last in cuts:
                at = f"@{first / SAMPLE_RATE:.2f}" if len(cuts) > 1 else ""
                utterance = Utterance(
                    f"{name}{at}", "", (last - first) / SAMPLE_RATE, name.split("/")[0], name, self.language
                )
                yield Clip(utterance, samples[first:last])

    def _read(self, file: tuple[Path, str]) -> np.ndarray | AudioError:
        try:
            return audio.decode(file[0])
        except AudioError as error:
            return error
