"""Sources written by the libraries that people write them with."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile

from caspi import commands
from caspi.corpus.sources.base import Source
from caspi.corpus.sources.discovery import discover
from caspi.corpus.sources.huggingface import HuggingFaceSource
from caspi.corpus.sources.kaldi import KaldiSource
from caspi.corpus.sources.lhotse import LhotseSource
from caspi.corpus.sources.manifest import ManifestSource
from caspi.corpus.sources.webdataset import WebDatasetSource
from caspi.corpus.utterance import BytesAudio, Recording
from caspi.errors import UsageError
from tests.conftest import tone
from tests.support import needs

TEXTS = ("שלום עולם", "מה שלומך היום", "תודה רבה לך", "בוקר טוב")
SPEAKERS = ("דנה", "דנה", "יוסי", "יוסי")


def wavs(folder: Path) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number}.wav" for number in range(len(TEXTS))]
    for number, path in enumerate(paths):
        soundfile.write(path, tone(2.0, seed=number), 16_000)
    return paths


def read(source: Source) -> list[Recording]:
    found = list(source.recordings("Hebrew"))
    assert [one.problem for one in found] == [""] * len(found)
    return found


def all_texts(found: Sequence[Recording]) -> list[str]:
    return [segment.text for one in found for segment in one.segments] or [one.text for one in found]


@needs("webdataset")
@pytest.mark.parametrize("with_json", [False, True])
def test_webdataset(with_json: bool, tmp_path: Path, recipe_of) -> None:  # type: ignore[no-untyped-def]
    import webdataset

    with webdataset.ShardWriter(str(tmp_path / "mine-%03d.tar"), maxcount=3, verbose=0) as writer:
        for number, (text, speaker) in enumerate(zip(TEXTS, SPEAKERS, strict=True)):
            audio = io.BytesIO()
            soundfile.write(audio, tone(2.0, seed=number), 16_000, format="FLAC")
            fields = {"json": {"sentence": text, "speaker_id": speaker, "lang": "he"}} if with_json else {"txt": text}
            writer.write({"__key__": f"clips/{number:04d}", "flac": audio.getvalue(), **fields})
    [found] = discover(tmp_path)
    assert found.config == {"kind": "webdataset", "path": str(tmp_path)}
    assert found.what == "WebDataset, 2 tar files"
    rows = read(WebDatasetSource(**found.config))  # type: ignore[arg-type]
    assert [row.text for row in rows] == list(TEXTS)
    assert len({row.group for row in rows}) == (2 if with_json else 4)
    assert len({row.id for row in rows}) == 4
    assert isinstance(rows[0].audio, BytesAudio)
    assert [row.id for row in WebDatasetSource(**found.config).recordings("Hebrew", 3)] == [rows[3].id]  # type: ignore[arg-type]
    assert commands.prepare.run(recipe_of([{"kind": "webdataset", "path": str(tmp_path)}])).summary["kept"] == 4


@needs("webdataset")
def test_samples_of_webdataset_that_cannot_be_used_say_why(tmp_path: Path) -> None:
    import webdataset

    path = tmp_path / "mine.tar"
    with webdataset.TarWriter(str(path)) as writer:
        writer.write({"__key__": "0", "txt": "שלום"})
        writer.write({"__key__": "1", "wav": b"RIFF", "json": ["not fields"]})
        writer.write({"__key__": "2", "wav": b"RIFF", "txt": "שלום".encode("cp1255")})
    problems = [one.problem for one in WebDatasetSource(kind="webdataset", path=path).recordings("Hebrew")]
    for problem, words in zip(problems, ("no audio file among .txt", "holds no fields", "utf-8"), strict=True):
        assert words in problem
        assert "mine.tar/" in problem
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(UsageError, match="cannot be read"):
        list(WebDatasetSource(kind="webdataset", path=path).recordings("Hebrew"))
    with pytest.raises(UsageError, match="no tar files"):
        list(WebDatasetSource(kind="webdataset", path=tmp_path / "none").recordings("Hebrew"))


@needs("datasets")
def test_a_data_set_saved_to_disk_with_its_splits(tmp_path: Path) -> None:
    import datasets

    paths = [str(path) for path in wavs(tmp_path / "clips")]
    columns = {"audio": paths, "sentence": list(TEXTS), "client_id": list(SPEAKERS)}
    made = datasets.Dataset.from_dict(columns).cast_column("audio", datasets.Audio(decode=False))
    datasets.DatasetDict({"train": made, "validation": made, "extra": made}).save_to_disk(str(tmp_path / "saved"))
    found = {one.config["hub_split"]: one.config for one in discover(tmp_path / "saved")}
    assert set(found) == {"train", "validation", "extra"}
    assert found["validation"]["split"] == "validation"
    assert "split" not in found["extra"]
    rows = read(HuggingFaceSource(**found["train"]))
    assert sorted(row.text for row in rows) == sorted(TEXTS)
    assert len({row.group for row in rows}) == 2, "a usual name of the speaker's column is known"
    named = HuggingFaceSource(**found["train"], group_key="sentence")
    assert len({row.group for row in named.recordings("Hebrew")}) == 4


@needs("lhotse")
def test_lhotse_and_kaldi_as_lhotse_writes_them(tmp_path: Path) -> None:
    from lhotse import CutSet, Recording, RecordingSet, SupervisionSegment, SupervisionSet
    from lhotse.kaldi import export_to_kaldi

    recordings = RecordingSet.from_recordings(Recording.from_file(path) for path in wavs(tmp_path / "clips"))
    supervisions = SupervisionSet.from_segments(
        SupervisionSegment(
            id=f"s{number}", recording_id=recording.id, start=0.5, duration=1.0, text=text, speaker=speaker,
            language="Hebrew",
        )
        for number, (recording, text, speaker) in enumerate(zip(recordings, TEXTS, SPEAKERS, strict=True))
    )  # fmt: skip
    cuts = CutSet.from_manifests(recordings=recordings, supervisions=supervisions)
    cuts.to_file(tmp_path / "cuts.jsonl.gz")
    rows = read(LhotseSource(kind="lhotse", path=tmp_path / "cuts.jsonl.gz", allow_outside=True))
    assert all_texts(rows) == list(TEXTS)
    assert len({row.group for row in rows}) == 2
    export_to_kaldi(recordings, supervisions, tmp_path / "kaldi")
    assert discover(tmp_path / "kaldi")[0].config["kind"] == "kaldi"
    rows = read(KaldiSource(kind="kaldi", path=tmp_path / "kaldi", allow_outside=True))
    assert sorted(all_texts(rows)) == sorted(TEXTS)
    assert len({row.group for row in rows}) == 2


@needs("datasets")
def test_a_nemo_manifest_as_datasets_writes_it(tmp_path: Path) -> None:
    """NeMo's own tools write these fields, one object in a line."""
    import datasets

    names = [path.name for path in wavs(tmp_path)]
    columns = {"audio_filepath": names, "duration": [2.0] * 4, "text": list(TEXTS), "speaker": list(SPEAKERS)}
    datasets.Dataset.from_dict(columns).to_json(tmp_path / "train.jsonl", force_ascii=False)
    assert json.loads((tmp_path / "train.jsonl").read_text().splitlines()[0])["text"] == TEXTS[0]
    rows = read(ManifestSource(kind="manifest", path=tmp_path / "train.jsonl"))
    assert all_texts(rows) == list(TEXTS)
    assert len({row.group for row in rows}) == 2
    assert np.isclose(sum((one.end or 0) - one.start for one in rows), 8.0)
