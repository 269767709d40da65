from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from caspi import audio, commands
from caspi.errors import UsageError
from caspi.inference.decoding_options import DecodingOptions
from caspi.inference.engine.engine import Engine
from caspi.inference.engine.requests import DecodeRequest
from caspi.inference.transcriber import Recording, Transcriber
from caspi.model.loading import LoadedModel
from tests.conftest import tone
from tests.support import voice


@pytest.fixture
def files(tmp_path: Path, speech: np.ndarray) -> list[Path]:
    """Three files; the second is not audio."""
    paths = [tmp_path / f"{name}.wav" for name in "abc"]
    for path in (paths[0], paths[2]):
        soundfile.write(path, speech, 22_050)
    paths[1].write_bytes(b"no audio")
    return paths


def transcribe(files: list[Path], out: Path | None, format_name: str = "txt") -> commands.outcome.Outcome:
    return commands.transcribe.run("tiny", files, format_name, out, "", "Spanish")


def test_a_bad_file_is_reported_and_the_others_are_transcribed(
    files: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = transcribe(files, tmp_path / "out")
    assert outcome.exit_code == 1
    assert sorted(path.name for path in (tmp_path / "out").glob("*.txt")) == ["a.txt", "c.txt"]
    assert f"not transcribed: {files[1]}: corrupt_audio" in capsys.readouterr().err
    assert outcome.line.startswith("2 of 3 files transcribed")
    assert outcome.line.endswith("1 could not be transcribed")


def test_finished_files_are_kept_after_an_interruption(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second file is read when the first is done, since the engine wants no more."""
    real, calls = Transcriber.submit, []

    def interrupted(self: Transcriber, recording: Recording) -> int:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(self, recording)

    monkeypatch.setattr(Transcriber, "submit", interrupted)
    monkeypatch.setattr(Transcriber, "wants_more", property(lambda self: not self.pending))
    good = [files[0], files[2]]
    with pytest.raises(KeyboardInterrupt):
        transcribe(good, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").glob("*.txt")] == ["a.txt"]
    outcome = transcribe(good, tmp_path / "out")
    assert len(calls) == 3
    assert outcome.line == f"1 of 2 files transcribed ({outcome.summary['files'][1]['seconds']:.1f} s of audio), " + (
        "1 were already transcribed"
    )


def test_a_changed_file_is_transcribed_again(files: list[Path], tmp_path: Path) -> None:
    assert not transcribe(files[:1], tmp_path / "out").summary["files"][0]["kept"]
    assert transcribe(files[:1], tmp_path / "out").summary["files"][0]["kept"]
    soundfile.write(files[0], tone(1.0), 16_000)
    assert not transcribe(files[:1], tmp_path / "out").summary["files"][0]["kept"]


def test_texts_with_other_settings_are_not_mixed(files: list[Path], tmp_path: Path) -> None:
    transcribe(files[:1], tmp_path / "out")
    with pytest.raises(UsageError, match="made with format = 'txt'; this run uses 'srt': give another folder"):
        transcribe(files[:1], tmp_path / "out", "srt")


def test_problems_of_the_audio_give_warnings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "cut.wav"
    soundfile.write(path, tone(4.0), 16_000)
    path.write_bytes(path.read_bytes()[:70_000])
    outcome = transcribe([path], None)
    assert f"warning: {path}: ends before the length in its header" in capsys.readouterr().err
    assert outcome.summary["files"][0]["warnings"] == [
        "ends before the length in its header: was it cut off in copying?"
    ]


def test_silence_is_reported_as_no_speech(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "x.wav", np.zeros(32_000), 16_000)
    outcome = transcribe([tmp_path / "x.wav"], None)
    assert outcome.line == "no speech (2.0 s of audio)"
    assert outcome.summary["files"][0]["text"] == ""


def test_a_file_is_transcribed_by_a_beam_search(tiny: LoadedModel, tmp_path: Path) -> None:
    samples = voice("la casa grande y el perro")
    path = tmp_path / "a.flac"
    path.write_bytes(audio.encode_flac(samples))
    result = commands.transcribe.run("tiny", [path], "txt", None, "", "Spanish", decoding=DecodingOptions(4)).summary[
        "files"
    ][0]
    heard = audio.decode(path)
    [wanted] = Engine(tiny).decode([DecodeRequest(heard, language="Spanish", beams=4)])
    assert result["text"] == wanted.text
