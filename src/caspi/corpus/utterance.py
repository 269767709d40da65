"""The record everything else handles: one utterance, and the recording it was cut from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import numpy as np

from caspi import audio
from caspi.audio import Seconds

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


class Word(NamedTuple):
    """A word and where it starts and ends, from the start of its utterance (or recording)."""

    text: str
    start: Seconds
    end: Seconds


@dataclass(frozen=True, slots=True)
class Utterance:
    """One clip and what is said in it. `group` is the recording or speaker that splits keep together."""

    id: str
    text: str
    seconds: Seconds
    source: str
    group: str
    language: str = "Hebrew"
    context: str = ""
    words: tuple[Word, ...] = ()
    synthetic: bool = False


class Audio(Protocol):
    """Where a recording's samples come from; small, picklable, loaded in a worker."""

    def load(self) -> tuple[np.ndarray, tuple[Word, ...]]:
        """Samples float32 [n] at 16 kHz, and word times if the audio itself knows them.

        Raises AudioError.
        """
        ...


@dataclass(frozen=True, slots=True)
class FileAudio:
    """A file in any format FFmpeg reads."""

    path: Path

    def load(self) -> tuple[np.ndarray, tuple[Word, ...]]:
        return audio.decode(self.path), ()


@dataclass(frozen=True, slots=True)
class BytesAudio:
    """The bytes of such a file, as data sets hold them."""

    data: bytes = field(repr=False)

    def load(self) -> tuple[np.ndarray, tuple[Word, ...]]:
        return audio.decode(self.data), ()


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of a recording with its own text. Words may be empty: then it cannot be cut further."""

    start: Seconds
    end: Seconds
    text: str
    words: tuple[Word, ...] = ()


@dataclass(frozen=True, slots=True)
class Recording:
    """What a source yields: audio with its text, whole or in timed segments.

    `split` is set where the source itself says which split it belongs to.
    """

    id: str
    audio: Audio
    source: str
    group: str
    language: str
    text: str = ""
    segments: Sequence[Segment] = ()
    start: Seconds = 0.0
    end: Seconds | None = None
    context: str = ""
    synthetic: bool = False
    split: Split | None = None
