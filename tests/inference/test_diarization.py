"""Speakers in transcripts. pyannote.audio itself is not to be had here: a package with its interface stands for it."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from caspi import commands
from caspi.commands.transcribe import TranscribeOptions
from caspi.errors import UsageError
from caspi.inference import diarization
from caspi.inference.diarization import Turn, with_speakers
from caspi.inference.engine.words import RecognisedWord
from caspi.inference.subtitles import FORMATS, described
from caspi.inference.transcripts import TimedText, Transcript
from tests.support import voice


def word(text: str, start: float) -> RecognisedWord:
    return RecognisedWord(text, 0.9, start, start + 0.4)


WORDS = (word("מה", 0.0), word("נשמע", 0.5), word("הכול", 1.0), word("בסדר", 1.5))
TRANSCRIPT = Transcript(
    "מה נשמע הכול בסדר ותודה",
    (TimedText(0.0, 2.0, "מה נשמע הכול בסדר", WORDS, tokens=(1, 2)), TimedText(4.0, 5.0, "ותודה")),
    "Hebrew", 5.0, 0,
)  # fmt: skip
TURNS = [Turn(0.0, 0.95, "SPEAKER_00"), Turn(0.95, 2.1, "SPEAKER_01"), Turn(4.1, 5.0, "SPEAKER_01")]


def test_a_segment_is_cut_where_the_speaker_changes() -> None:
    found = with_speakers(TRANSCRIPT, TURNS)
    assert [(part.speaker, part.text) for part in found.segments] == [
        ("SPEAKER_00", "מה נשמע"), ("SPEAKER_01", "הכול בסדר"), ("SPEAKER_01", "ותודה"),
    ]  # fmt: skip
    assert [part.tokens for part in found.segments] == [(1, 2), (), ()]
    assert FORMATS["txt"](found, "") == "SPEAKER_00: מה נשמע\nSPEAKER_01: הכול בסדר ותודה\n"
    assert FORMATS["srt"](found, "").count("SPEAKER_01: ") == 1, "only where it changes"
    assert [part["speaker"] for part in described(found)["segments"]] == ["SPEAKER_00", "SPEAKER_01", "SPEAKER_01"]


def test_what_nobody_says_has_no_speaker() -> None:
    found = with_speakers(TRANSCRIPT, [Turn(10.0, 11.0, "SPEAKER_00")])
    assert [part.speaker for part in found.segments] == [None, None]
    assert FORMATS["txt"](found, "") == TRANSCRIPT.text + "\n"
    assert "speaker" not in described(found)["segments"][0]


def test_turns_of_a_part_are_moved() -> None:
    late = with_speakers(TRANSCRIPT, [Turn(0.0, 1.0, "SPEAKER_07")], start=4.0)
    assert [part.speaker for part in late.segments] == [None, "SPEAKER_07"]


class Annotation:
    def itertracks(self, yield_label: bool) -> Iterator[tuple[Any, str, str]]:
        assert yield_label
        for start, end, name in ((0.0, 1.0, "SPEAKER_00"), (4.0, 9.0, "SPEAKER_01")):
            yield types.SimpleNamespace(start=start, end=end), "track", name


class Pipeline:
    """With the interface of pyannote.audio 4."""

    @classmethod
    def from_pretrained(cls, name: str, token: str | None) -> Pipeline:
        assert name == diarization.PIPELINE
        return cls()

    def __call__(self, audio: dict[str, Any]) -> Any:
        assert audio["waveform"].ndim == 2
        assert audio["sample_rate"] == 16_000
        return types.SimpleNamespace(speaker_diarization=Annotation())


@pytest.fixture
def file(tmp_path: Path) -> str:
    spoken = voice("la casa grande")
    soundfile.write(tmp_path / "a.wav", np.concatenate([spoken, np.zeros(4 * 16_000, np.float32), spoken]), 16_000)
    return str(tmp_path / "a.wav")


def test_a_file_is_transcribed_with_its_speakers(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    package = types.ModuleType("pyannote.audio")
    package.Pipeline = Pipeline  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pyannote", types.ModuleType("pyannote"))
    monkeypatch.setitem(sys.modules, "pyannote.audio", package)
    monkeypatch.setattr(diarization, "check_diarization", lambda inputs: None)
    options = TranscribeOptions(language="Spanish", diarize=True, aligner="tiny-aligner")
    [found] = commands.transcribe.run("tiny", [file], options).summary["files"]
    assert [segment["speaker"] for segment in found["segments"]] == ["SPEAKER_00", "SPEAKER_01"]


def test_without_the_package_it_is_one_line(file: str) -> None:
    with pytest.raises(UsageError, match=r"--diarize needs the package pyannote\.audio"):
        commands.transcribe.run("tiny", [file], TranscribeOptions(diarize=True))
