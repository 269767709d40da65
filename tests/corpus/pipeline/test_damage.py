from __future__ import annotations

import json
from pathlib import Path

import pytest

from caspi import commands
from caspi.audio import AudioError
from caspi.corpus.pipeline import filters
from tests.conftest import tone
from tests.corpus.pipeline.damage import damaged_inputs, long_silence
from tests.support import write_manifest


@pytest.mark.slow
def test_each_of_a_thousand_damaged_inputs_has_an_outcome(tmp_path: Path, recipe_of) -> None:  # type: ignore[no-untyped-def]
    path = damaged_inputs(tmp_path / "in", 1_000, seed=0)
    long_silence(tmp_path / "in" / "silence.flac", 3.0)
    with path.open("a") as manifest:
        manifest.write(json.dumps({"audio": "silence.flac", "text": "שלום לכם", "id": "silence"}) + "\n")
        manifest.write(json.dumps({"audio": ".", "text": "שלום לכם", "id": "a folder"}) + "\n")
    made = recipe_of([{"kind": "manifest", "path": path}], workers=2, filters={"max_silence": 1.0})
    summary = commands.prepare.run(made).summary
    assert summary["input"] == 1_002 == summary["kept"] + sum(summary["rejected"].values())
    assert summary["kept"] >= 1_000 // 13  # at least the undamaged ones
    for reason in ("corrupt_audio", "empty_audio", "non_finite_audio", "missing_audio", "long_without_times"):
        assert summary["rejected"][reason] >= 1, summary["rejected"]
    assert "decoder_crashed" not in summary["rejected"]


def test_audio_reasons_are_corpus_reasons() -> None:
    import re
    import typing

    from caspi import audio

    files = Path(audio.__file__).parent.glob("*.py")
    named = {reason for file in files for reason in re.findall(r'AudioError\("(\w+)"', file.read_text())}
    known = {reason for part in typing.get_args(filters.Reason) for reason in typing.get_args(part) or (part,)}
    assert named
    assert named <= known


def test_audio_cut_in_the_middle_is_truncated(tmp_path: Path, recipe_of) -> None:  # type: ignore[no-untyped-def]
    path = write_manifest(tmp_path / "in", [(tone(4.0), "שלום לכם חברים")])
    file = tmp_path / "in" / "m-0.flac"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    from caspi.errors import UsageError

    with pytest.raises(UsageError, match=r"truncated_audio 1|corrupt_audio 1"):
        commands.prepare.run(recipe_of([{"kind": "manifest", "path": path}]))


@pytest.mark.parametrize("kind", ["WAV", "FLAC"])
def test_a_wav_shorter_than_its_header_is_truncated(tmp_path: Path, kind: str) -> None:
    import soundfile

    from caspi import audio

    path = tmp_path / f"x.{kind.lower()}"
    soundfile.write(path, tone(10.0), 16_000, format=kind)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.55)])
    stream = audio.open_stream(path)
    assert stream.declared == pytest.approx(10.0, rel=0.01)


def test_a_pickled_audio_error_keeps_its_reason() -> None:
    assert AudioError("empty_audio", "x").reason == "empty_audio"
