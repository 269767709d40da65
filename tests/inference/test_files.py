from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from caspi import audio, commands
from caspi.commands.transcribe import TranscribeOptions
from caspi.errors import UsageError
from caspi.inference.decoding_options import DecodingOptions
from caspi.inference.engine.engine import Engine
from caspi.inference.engine.requests import DecodeRequest
from caspi.inference.transcriber import Transcriber, TranscriptionOptions
from caspi.model.loading import LoadedModel
from tests.conftest import tone
from tests.support import needs, voice


@pytest.fixture
def files(tmp_path: Path, speech: np.ndarray) -> list[Path]:
    """Three files; the second is not audio."""
    paths = [tmp_path / f"{name}.wav" for name in "abc"]
    for path in (paths[0], paths[2]):
        soundfile.write(path, speech, 22_050)
    paths[1].write_bytes(b"no audio")
    return paths


def transcribe(files: list[Path], out: Path | None, formats: str = "txt", **options: Any) -> commands.outcome.Outcome:
    asked = TranscribeOptions(formats, out, language="Spanish", **options)
    return commands.transcribe.run("tiny", [str(file) for file in files], asked)


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
    """The second file is begun when the first is done, since the engine wants no more."""
    real, calls = Transcriber.begin, []

    def interrupted(self: Transcriber, *arguments: Any) -> int:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(self, *arguments)

    monkeypatch.setattr(Transcriber, "begin", interrupted)
    monkeypatch.setattr(Transcriber, "wants_more", property(lambda self: not self.working))
    good = [files[0], files[2]]
    with pytest.raises(KeyboardInterrupt):
        transcribe(good, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").glob("*.txt")] == ["a.txt"]
    outcome = transcribe(good, tmp_path / "out")
    assert len(calls) == 3
    assert outcome.line == f"1 of 2 files transcribed ({outcome.summary['files'][1]['seconds']:.1f} s of audio), " + (
        "1 already transcribed"
    )


def test_a_changed_file_is_transcribed_again(files: list[Path], tmp_path: Path) -> None:
    assert not transcribe(files[:1], tmp_path / "out").summary["files"][0]["kept"]
    assert transcribe(files[:1], tmp_path / "out").summary["files"][0]["kept"]
    soundfile.write(files[0], tone(1.0), 16_000)
    assert not transcribe(files[:1], tmp_path / "out").summary["files"][0]["kept"]


def test_texts_with_other_settings_are_not_mixed(files: list[Path], tmp_path: Path) -> None:
    transcribe(files[:1], tmp_path / "out")
    with pytest.raises(
        UsageError, match="made with formats = \\['txt'\\]; this run uses \\['srt'\\]: give another folder"
    ):
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
    [result] = transcribe([path], None, decoding=DecodingOptions(4), detect_speech=False).summary["files"]
    heard = audio.decode(path)
    [wanted] = Engine(tiny).decode([DecodeRequest(heard, language="Spanish", beams=4)])
    assert result["text"] == wanted.text


def written(path: Path, samples: np.ndarray) -> Path:
    soundfile.write(path, samples, 16_000)
    return path


def words_of(outcome: commands.outcome.Outcome, number: int = 0) -> str:
    text: str = outcome.summary["files"][number]["text"]
    return text


@needs("onnxruntime")
def test_only_speech_is_transcribed(tmp_path: Path) -> None:
    """Half a minute of silence, noise and a tone around a sentence; without detection the tone gets a text."""
    spoken = voice("la casa grande y el perro")
    hiss = (0.02 * np.random.default_rng(0).standard_normal(10 * 16_000)).astype(np.float32)
    file = written(tmp_path / "a.wav", np.concatenate([tone(10.0), hiss, spoken, hiss, tone(10.0)]))
    found = transcribe([file], None).summary["files"][0]
    assert "casa" in found["text"]
    [segment] = found["segments"]
    assert 19.5 <= segment["start"] <= 20.05
    assert segment["no_speech_prob"] < 0.4
    assert transcribe([file], None, detect_speech=False).summary["files"][0]["text"] != found["text"]
    nothing = transcribe([written(tmp_path / "c.wav", tone(60.0))], None)
    assert nothing.line == "no speech (60.0 s of audio)"


def test_segments_have_the_figures_that_whisper_gives(tmp_path: Path) -> None:
    found = transcribe([written(tmp_path / "a.wav", voice("la casa grande"))], None).summary["files"][0]
    assert (found["language"], found["language_name"]) == ("es", "Spanish")
    [segment] = found["segments"]
    assert segment["avg_logprob"] < 0 < segment["confidence"] < 1
    assert segment["confidence"] == pytest.approx(np.exp(segment["avg_logprob"]))
    assert (segment["id"], segment["temperature"], len(segment["tokens"]) > 2) == (0, 0.0, True)
    assert 0.3 < segment["compression_ratio"] < 1.5
    assert [word["word"] for word in segment["words"]] == segment["text"].split()


def test_a_part_and_a_channel_of_a_file(tmp_path: Path) -> None:
    one, other = voice("la casa grande"), voice("el perro blanco")
    length = max(len(one), len(other))
    stereo = np.stack([np.pad(sound, (0, length - len(sound))) for sound in (one, other)], axis=1)
    mono = written(tmp_path / "mono.wav", np.concatenate([one, np.zeros(16_000 * 3, np.float32), other]))
    both = written(tmp_path / "stereo.wav", stereo)
    alone = [
        words_of(transcribe([written(tmp_path / f"{n}.wav", sound)], None)) for n, sound in enumerate([one, other])
    ]
    assert [words_of(transcribe([both], None, channel=number)) for number in (0, 1)] == alone
    late = round(len(one) / 16_000 + 2, 2)
    found = transcribe([mono], None, clip=f"{late}-").summary["files"][0]
    rest = written(tmp_path / "rest.wav", audio.decode(mono)[round(late * 16_000) :])
    assert found["text"] == words_of(transcribe([rest], None))
    assert found["segments"][0]["start"] > late
    first = written(tmp_path / "first.wav", audio.decode(mono)[: round(late * 16_000)])
    assert words_of(transcribe([mono], None, clip=f"0-{late}")) == words_of(transcribe([first], None))
    outcome = transcribe([mono, both], None, clip="100-200")
    assert outcome.exit_code == 1
    assert "it ends before that" in outcome.summary["files"][0]["error"]


def test_hundreds_of_files_cost_one_bad_file_nothing(tmp_path: Path) -> None:
    spoken = voice("la casa")
    for number in range(120):
        folder = tmp_path / "in" / str(number % 7)
        folder.mkdir(parents=True, exist_ok=True)
        written(folder / f"{number}.wav", spoken)
    (tmp_path / "in" / "0" / "bad.wav").write_bytes(b"RIFF")
    outcome = transcribe([tmp_path / "in"], tmp_path / "out", "txt,json")
    assert outcome.line.startswith("120 of 121 files transcribed")
    assert len(list((tmp_path / "out").rglob("*.txt"))) == len(list((tmp_path / "out").rglob("*.json"))) == 120
    assert len({path.read_text() for path in (tmp_path / "out").rglob("*.txt")}) == 1


def test_what_comes_through_a_pipe(tmp_path: Path) -> None:
    file = written(tmp_path / "a.wav", voice("la casa grande"))
    command = [sys.executable, "-m", "caspi", "transcribe", "tiny", "-", "--language", "es"]
    with file.open("rb") as piped:
        result = subprocess.run(command, stdin=piped, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == words_of(transcribe([file], None))


def test_hotwords_come_before_the_context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "names.txt").write_text("נועה\n\nחיפה\n", encoding="utf-8")
    asked: list[TranscriptionOptions] = []
    real = Transcriber.begin

    def begin(self: Transcriber, options: TranscriptionOptions, *rest: Any) -> int:
        asked.append(options)
        return real(self, options, *rest)

    monkeypatch.setattr(Transcriber, "begin", begin)
    transcribe([written(tmp_path / "a.wav", voice("la casa"))], None, hotwords=tmp_path / "names.txt", context="אתמול")
    assert [options.context for options in asked] == ["נועה, חיפה אתמול"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"formats": "txt,doc"}, "--format doc: not one of txt, json"),
        ({"formats": "txt,json"}, "for several formats give --out a folder"),
        ({"clip": "9"}, "--clip 9: give START-END"),
        ({"clip": "20-10"}, "--clip 20-10: a part from 20 to 10 s"),
        ({"clip": "a-b"}, "--clip a-b: could not convert"),
        ({"hotwords": Path("/nowhere")}, "--hotwords /nowhere"),
    ],
)
def test_wrong_options_are_one_line(files: list[Path], options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        transcribe(files, None, **options)


def test_options_of_decoding() -> None:
    parsed = commands.transcribe.decoding_options(1, False, False, "0,0.2,1")
    assert parsed.temperatures == (0.0, 0.2, 1.0)
    assert [commands.transcribe.rows_option(text) for text in ("auto", "8")] == [None, 8]
    for beams, text in ((1, "hot"), (1, "0,3"), (4, "0.5")):
        with pytest.raises(UsageError, match="--temperature"):
            commands.transcribe.decoding_options(beams, False, False, text)
    with pytest.raises(UsageError, match="--batch-size 0"):
        commands.transcribe.rows_option("0")


def test_every_format_is_read_by_its_own_library(tmp_path: Path) -> None:
    """All formats of one file with word times, against its JSON."""
    import srt
    import webvtt
    from praatio import textgrid

    spoken = voice("la casa grande y el perro")
    file = written(tmp_path / "a.wav", np.concatenate([spoken, np.zeros(48_000, np.float32), spoken]))
    asked = TranscribeOptions("all", tmp_path / "out", aligner="tiny-aligner")
    assert commands.transcribe.run("tiny", [str(file)], asked).exit_code == 0
    out = tmp_path / "out"
    found = json.loads((out / "a.json").read_text())
    assert (out / "a.txt").read_text() == found["text"] + "\n"
    subtitles = list(srt.parse((out / "a.srt").read_text()))
    vtt = webvtt.read(out / "a.vtt")
    assert [cue.content for cue in subtitles] == [cue.text for cue in vtt]
    rows = list(csv.DictReader((out / "a.csv").open(newline="", encoding="utf-8")))
    assert [float(row["start"]) for row in rows] == [cue.start.total_seconds() for cue in subtitles]
    lines = [line.split("\t") for line in (out / "a.tsv").read_text().splitlines()]
    assert lines[0] == ["start", "end", "text"]
    assert [int(line[0]) for line in lines[1:]] == [round(1000 * float(row["start"])) for row in rows]
    assert " ".join(row["text"] for row in rows) == found["text"]
    timed = [word for segment in found["segments"] for word in segment["words"] if "start" in word]
    ctm = [line.split() for line in (out / "a.ctm").read_text().splitlines()]
    assert [line[4] for line in ctm] == [word["word"] for word in timed]
    grid = textgrid.openTextgrid(str(out / "a.TextGrid"), includeEmptyIntervals=False)
    assert [entry.label for entry in grid.getTier("words").entries] == [word["word"] for word in timed]
    assert webvtt.read(out / "a.karaoke.vtt").captions


def test_runs_into_the_same_folder_never_overwrite_each_other(tmp_path: Path) -> None:
    """Trap: two files of the same name in two runs became one text, which the first then kept."""
    spoken = [voice("la casa grande"), voice("el perro come pan", 7)]
    files = []
    for folder, samples in zip("ab", spoken, strict=True):
        (tmp_path / folder).mkdir()
        files.append(written(tmp_path / folder / "x.wav", samples))
    alone = [words_of(transcribe([file], None)) for file in files]
    out = tmp_path / "out"
    for file in (files[0], files[1]):
        transcribe([file], out)
    again = transcribe(files, out)
    assert [found["kept"] for found in again.summary["files"]] == [True, True]
    names = [Path(found["written"][0]) for found in again.summary["files"]]
    assert [name.read_text().strip() for name in names] == alone
    assert [name.name for name in names] == ["x.txt", "x.wav.txt"]
    parts = [transcribe([files[0]], tmp_path / "parts", clip=clip).summary["files"][0] for clip in ("0-0.5", "0.5-1")]
    assert len({part["written"][0] for part in parts}) == 2


def test_another_model_in_the_same_folder_does_not_keep_old_texts(tmp_path: Path) -> None:
    commands.export.run("tiny", "hf", tmp_path / "model")
    file = str(written(tmp_path / "a.wav", voice("la casa")))
    options = TranscribeOptions("txt", tmp_path / "out")
    commands.transcribe.run(str(tmp_path / "model"), [file], options)
    (tmp_path / "model" / "model.safetensors").touch()
    with pytest.raises(UsageError, match="made with weights ="):
        commands.transcribe.run(str(tmp_path / "model"), [file], options)


def test_subtitles_without_an_aligner_can_be_read_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    import srt

    samples = np.concatenate([np.append(voice("la casa grande y el perro", n), np.zeros(8_000)) for n in range(12)])
    text = transcribe([written(tmp_path / "a.wav", samples.astype(np.float32))], None, "srt").text
    cues = list(srt.parse(text))
    assert len(cues) >= 4
    assert max((cue.end - cue.start).total_seconds() for cue in cues) <= 7.0
    assert "cues are windows of 7 s at most" in caplog.text
