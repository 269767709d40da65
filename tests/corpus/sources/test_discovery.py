"""What `caspi init` sees in folders and files as people and programs leave them."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from pydantic import TypeAdapter

from caspi.corpus.sources import Source, SourceConfig
from caspi.corpus.sources.discovery import FoundSource, discover
from caspi.corpus.sources.survey import Survey, script_of, survey
from caspi.errors import UsageError
from tests.conftest import tone
from tests.support import encoded

TEXTS = ["שלום לכם חברים", "מה שלומכם היום", "תודה רבה לכולם", "להתראות מחר בבוקר"]


def sounds(folder: Path, ending: str = "wav", names: tuple[str, ...] = ("a", "b", "c", "d")) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        soundfile.write(folder / f"{name}.{ending}", tone(1.0 + number, 22_050, seed=number), 22_050)
    return list(names)


def write_csv(path: Path, header: list[str], rows: list[list[str]], **options: Any) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, **options)
        writer.writerow(header)
        writer.writerows(rows)


def opened(found: list[FoundSource]) -> list[Source]:
    adapter: TypeAdapter[Any] = TypeAdapter(SourceConfig)
    return [adapter.validate_json(json.dumps(one.config)) for one in found]


def surveyed(path: Path) -> tuple[list[FoundSource], Survey]:
    found = discover(path)
    return found, survey(opened(found), "Hebrew")


def test_a_table_with_usual_names(tmp_path: Path) -> None:
    names = sounds(tmp_path / "clips")
    rows = [[f"clips/{name}.wav", text, f"s{n % 2}"] for n, (name, text) in enumerate(zip(names, TEXTS, strict=True))]
    write_csv(tmp_path / "data.csv", ["file_name", "transcription", "speaker_id"], rows)
    [one], measured = surveyed(tmp_path)
    assert one.config["kind"] == "csv"
    assert not one.notes
    assert (measured.utterances, measured.texts, measured.bad) == (4, 4, 0)
    assert measured.longest == pytest.approx(4.0, abs=0.01)
    assert measured.hours == pytest.approx(10 / 3600, rel=0.01)
    assert measured.sample_rates == {22_050: 4}
    assert measured.names_speakers
    assert len(measured.speakers) == 2
    assert measured.scripts["HEBREW"] == sum(script_of(letter) == "HEBREW" for text in TEXTS for letter in text)


def test_columns_with_other_names_are_guessed_from_what_is_in_them(tmp_path: Path) -> None:
    names = sounds(tmp_path / "audio files", "flac")
    rows = [[str(n), name, text, "x y"] for n, (name, text) in enumerate(zip(names, TEXTS, strict=True))]
    write_csv(tmp_path / "list.tsv", ["nr", "recording", "said", "remark"], rows, delimiter="\t")
    [one], measured = surveyed(tmp_path)
    assert one.config["columns"] == {"audio": "recording", "text": "said"}
    assert (one.config["audio_folder"], one.config["audio_ending"]) == ("audio files", ".flac")
    assert len(one.notes) == 2
    assert "guessed" in one.notes[0]
    assert (measured.texts, measured.bad) == (4, 0)


def test_quotation_marks_that_do_not_close_are_text(tmp_path: Path) -> None:
    sounds(tmp_path)
    (tmp_path / "data.csv").write_text('audio,text\na.wav,"שלום\nb.wav,עולם\n', encoding="utf-8")
    [one], measured = surveyed(tmp_path)
    assert one.config["quoting"] is False
    assert measured.utterances == 2


def test_a_table_of_windows_1255(tmp_path: Path) -> None:
    sounds(tmp_path)
    (tmp_path / "data.csv").write_bytes("audio,text\na.wav,שלום\n".encode("windows-1255"))
    [one], measured = surveyed(tmp_path)
    assert one.config["encoding"] == "windows-1255"
    assert measured.scripts["HEBREW"] == 4


def test_common_voice_with_its_splits(tmp_path: Path) -> None:
    sounds(tmp_path / "clips", "mp3")
    for name, clip in (("train", "a"), ("dev", "b"), ("test", "c"), ("validated", "a")):
        rows = [["x" * 8, f"{clip}.mp3", '"' + TEXTS[0], "he"]]
        write_csv(tmp_path / f"{name}.tsv", ["client_id", "path", "sentence", "locale"], rows, delimiter="\t",
                  quoting=csv.QUOTE_NONE, quotechar=None)  # fmt: skip
    found, measured = surveyed(tmp_path)
    assert [one.config["split"] for one in found] == ["train", "validation", "test"]
    assert measured.splits == {"train": 1, "validation": 1, "test": 1}
    assert measured.bad == 0


def test_ljspeech(tmp_path: Path) -> None:
    sounds(tmp_path / "wavs")
    (tmp_path / "metadata.csv").write_text("a|1|one\nb|2|two\n", encoding="utf-8")
    [one], measured = surveyed(tmp_path)
    assert one.what == "LJSpeech's layout"
    assert measured.scripts == {"LATIN": 6}
    assert (measured.texts, measured.bad, measured.audio_files) == (2, 0, 2)


def test_manifests_of_nemo_and_of_lhotse(tmp_path: Path) -> None:
    sounds(tmp_path)
    nemo = tmp_path / "train_manifest.jsonl"
    nemo.write_text(json.dumps({"audio_filepath": "a.wav", "duration": 1.0, "text": TEXTS[0]}) + "\n")
    [one], measured = surveyed(tmp_path)
    assert one.what == "a NeMo manifest"
    assert measured.texts == 1
    nemo.write_text(json.dumps({"id": "1", "recording": {"id": "1", "sources": []}, "supervisions": []}) + "\n")
    assert discover(tmp_path)[0].config["kind"] == "lhotse"


def test_kaldi_parquet_and_texts_beside_audio(tmp_path: Path) -> None:
    kaldi = tmp_path / "kaldi"
    sounds(kaldi)
    (kaldi / "wav.scp").write_text("u1 a.wav\n")
    (kaldi / "text").write_text("u1 שלום\n", encoding="utf-8")
    rows = [{"audio": {"bytes": encoded(tone(1.0), 16_000, "flac", "flac"), "path": None}, "text": TEXTS[0]}]
    table = tmp_path / "hub" / "data" / "train-00000-of-00001.parquet"
    table.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), table)
    beside = tmp_path / "beside"
    sounds(beside)
    (beside / "a.txt").write_text(TEXTS[0], encoding="utf-8")
    for folder, kind in ((kaldi, "kaldi"), (tmp_path / "hub", "huggingface"), (beside, "folder")):
        [one], measured = surveyed(folder)
        assert (one.config["kind"], measured.texts) == (kind, 1)
    assert "3 audio files have no text" in discover(beside)[0].notes[0]


def test_long_recordings_without_times_are_told(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(40.0), 16_000)
    write_csv(tmp_path / "data.csv", ["audio", "text"], [["a.wav", TEXTS[0]], ["missing.wav", TEXTS[1]]])
    _, measured = surveyed(tmp_path)
    assert measured.untimed == 1
    assert measured.bad == 1
    assert "missing.wav" in measured.problems[0]


def test_what_is_no_data_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        discover(tmp_path / "none")
    with pytest.raises(UsageError, match="no data that caspi knows"):
        discover(tmp_path)
    sounds(tmp_path)
    with pytest.raises(UsageError, match=r"4 audio files and no transcripts.*caspi label"):
        discover(tmp_path)
    (tmp_path / "data.csv").write_text("x,y\n1,2\n")
    with pytest.raises(UsageError, match=r"no column holds audio files; its columns are 'x', 'y'"):
        discover(tmp_path)
    with pytest.raises(UsageError, match="not a table"):
        discover(tmp_path / "a.wav")
