"""What `transcribe` is given: every recording once, with outputs of its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caspi.errors import UsageError
from caspi.inference.inputs import AudioInput, Span, audio_inputs


def made(home: Path, *names: str) -> list[str]:
    for name in names:
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).touch()
    return [str(home / name) for name in names]


def names(inputs: list[AudioInput]) -> list[str]:
    return [str(one.name) for one in inputs]


def test_a_folder_is_its_audio_files_at_any_depth(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made(tmp_path, "a.wav", "deep/er/b.MP3", "notes.txt", ".hidden.wav")
    assert names(audio_inputs([str(tmp_path)])) == ["a", "deep/er/b"]
    assert "1 of 3 files are not audio by their names: notes.txt" in caplog.text


def test_a_pattern_is_expanded_and_a_file_is_taken_once(tmp_path: Path) -> None:
    [first, _, _] = made(tmp_path, "a.wav", "b.wav", "c.flac")
    assert names(audio_inputs([str(tmp_path / "*.wav"), first])) == ["a", "b"]


def test_equal_names_get_their_folders_and_then_their_ends(tmp_path: Path) -> None:
    files = made(tmp_path, "a/x.wav", "b/x.wav", "b/x.mp3", "b/y.wav")
    assert names(audio_inputs(files)) == ["a/x", "b/x.wav", "b/x.mp3", "y"]
    folders = [str(tmp_path / "a"), str(tmp_path / "b")]
    assert names(audio_inputs(folders)) == ["a/x", "b/x.mp3", "b/x.wav", "y"]


@given(st.lists(st.sampled_from(["a/x.wav", "b/x.wav", "b/x.mp3", "x.wav", "B/X.wav", "y.wav"]), min_size=1))
def test_no_two_outputs_have_the_same_name(files: list[str]) -> None:
    inputs = audio_inputs(files)
    assert len(inputs) == len(set(files))
    assert len({name.casefold() for name in names(inputs)}) == len(inputs)


def test_a_manifest_names_files_and_their_parts(tmp_path: Path) -> None:
    lines = [
        {"audio": "a.wav", "id": "one/two"}, {"audio": "a.wav", "start": 2, "end": 3.5, "text": "not used"},
        {"audio_filepath": "a.wav", "offset": 4, "duration": 1, "channel": 1},
    ]  # fmt: skip
    manifest = tmp_path / "m.jsonl"
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
    first, second, third = audio_inputs([str(manifest)])
    assert (first.path, str(first.name), first.span) == (tmp_path / "a.wav", "one-two", Span())
    assert (second.span, third.span, third.channel) == (Span(2.0, 3.5), Span(4.0, 5.0), 1)
    assert names([second, third]) == ["a-1", "a-2"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"text": "x"}, "line 1: no audio"),
        ({"audio": "a.wav", "start": 3, "end": 2}, "a part from 3 to 2 s"),
        ({"audio": "https://example.org/a.wav"}, "is an address: download it first"),
        ({"audio": "a.wav", "start": "late"}, "line 1: could not convert"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: dict[str, object], message: str) -> None:
    (tmp_path / "m.jsonl").write_text(json.dumps(line) + "\n")
    with pytest.raises(UsageError, match=message):
        audio_inputs([str(tmp_path / "m.jsonl")])


@pytest.mark.parametrize(
    ("text", "message"),
    [("https://x.org/a.mp3", "an address; only files"), ("none/*.wav", "no file has such a name")],
)
def test_what_means_no_file_is_refused(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        audio_inputs([text])
    made(tmp_path, "only.txt")
    with pytest.raises(UsageError, match="no audio file in it"):
        audio_inputs([str(tmp_path)])
