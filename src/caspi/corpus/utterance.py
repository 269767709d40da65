"""The basic records: one utterance, and the recording it was cut from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

from caspi import audio
from caspi.audio import Seconds, Stream
from caspi.corpus.signals import Signals

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


class Word(NamedTuple):
    """A word or phrase with its start and end time, relative to the start of its utterance (or recording)."""

    text: str
    start: Seconds
    end: Seconds


@dataclass(frozen=True, slots=True)
class Utterance:
    """One clip and its transcript. `group` is the recording or speaker that splits keep together.

    context: hotwords; previous: the preceding text of the same recording. segments: phrases with their times.
    quality: the source's own score. sample_rate, channels: of the original file. repeat: number of earlier utterances
    in the corpus with (nearly) the same text. labelled: recognisers wrote the text (caspi label); only to train on.
    """

    id: str
    text: str
    seconds: Seconds
    source: str
    group: str
    language: str = "Hebrew"
    context: str = ""
    previous: str = ""
    words: tuple[Word, ...] = ()
    segments: tuple[Word, ...] = ()
    synthetic: bool = False
    quality: float | None = None
    sample_rate: int = audio.SAMPLE_RATE
    channels: int = 1
    dead_channel: bool = False
    signals: Signals | None = None
    repeat: int = 0
    labelled: bool = False


class Audio(Protocol):
    """The origin of a recording's samples; small, picklable, opened in a worker."""

    def open(self) -> tuple[Stream, tuple[Word, ...]]:
        """The audio stream, and word times if the audio itself provides them. Raises AudioError."""
        ...


@dataclass(frozen=True, slots=True)
class FileAudio:
    """A file in any format that libsndfile or FFmpeg reads; one channel of it, or the mean of all."""

    path: Path
    channel: int | None = None

    def open(self) -> tuple[Stream, tuple[Word, ...]]:
        return audio.open_stream(self.path, self.channel), ()


@dataclass(frozen=True, slots=True)
class BytesAudio:
    """The bytes of such a file, as data sets hold them."""

    data: bytes = field(repr=False)
    channel: int | None = None

    def open(self) -> tuple[Stream, tuple[Word, ...]]:
        return audio.open_stream(self.data, self.channel), ()


@dataclass(frozen=True, slots=True)
class Segment:
    """A span of a recording with its own text. If words is empty, it cannot be cut further. problem: why its text is
    not to be trusted; it is then rejected."""

    start: Seconds
    end: Seconds
    text: str
    words: tuple[Word, ...] = ()
    id: str = ""
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Recording:
    """What a source yields: audio with its text, whole or in timed segments.

    `split` is set if the source itself names the split; `problem` if its row cannot be used. labelled: see `Utterance`.
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
    previous: str = ""
    synthetic: bool = False
    quality: float | None = None
    split: Split | None = None
    labelled: bool = False
    problem: str = ""
    problem_is: Literal["bad_row", "missing_text"] = "bad_row"
