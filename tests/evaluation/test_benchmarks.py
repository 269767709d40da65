from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from caspi import commands
from caspi.corpus.sources.catalogue import CATALOGUE
from caspi.corpus.sources.huggingface import HuggingFaceSource
from caspi.corpus.synthesis.espeak import Voice, speak
from caspi.corpus.utterance import Word
from caspi.errors import UsageError
from caspi.evaluation import benchmarks, decode
from caspi.evaluation.options import EvaluationOptions
from tests.corpus.sources.test_sources import ROWS

SIX = benchmarks.SETS["ivrit"]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CASPI_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "benchmarks"


def files(name: str, folder: Path, rows: list[dict] | None = None) -> str:  # type: ignore[type-arg]
    """Writes a set's parquet files; returns the name to request it by."""
    folder = folder / name
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows or ROWS[name]), folder / f"{CATALOGUE[name].split}-0.parquet")
    return f"{name}@{folder}"


@pytest.mark.parametrize("name", SIX)
def test_a_benchmark_is_complete_with_its_published_text(name: str, tmp_path: Path) -> None:
    rows = [dict(row) for row in ROWS[name]]
    text = next(key for key in CATALOGUE[name].text if key in rows[0])
    rows[0][text] = 'שָׁלוֹם, צה"ל [רעש] (צחוק) <b>'
    rows[1][text] = ""
    rows.append(dict(rows[2]))  # the same clip once more
    corpus = benchmarks.open_set(files(name, tmp_path, rows))
    assert corpus.column("text")[:2] == ['שָׁלוֹם, צה"ל [רעש] (צחוק) <b>', ""]
    assert len(corpus) == len(set(corpus.column("id"))) == 4
    assert set(corpus.column("source")) == {name}


def test_one_name_stands_for_six_sets() -> None:
    assert benchmarks.named("ivrit") == list(SIX)
    assert benchmarks.named("kan@abc") == ["kan@abc"]
    assert benchmarks.named("runs/corpus") == []
    with pytest.raises(UsageError, match="a revision belongs to one set"):
        benchmarks.named("ivrit@abc")


def test_an_added_set_is_the_only_one_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = files("kan", tmp_path), files("eval-d1", tmp_path)
    commands.evaluate.run("tiny", [one], tmp_path / "out")
    decoded: list[str] = []
    read = decode._recording
    monkeypatch.setattr(
        decode, "_recording", lambda job, row: (decoded.append(job.corpus.folder.name), read(job, row))[1]
    )
    summary = commands.evaluate.run("tiny", [one, other], tmp_path / "out").summary
    assert summary["by_source"].keys() == {"kan", "eval-d1"}
    assert {name.split("@")[0] for name in decoded} == {"eval-d1"}
    content = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert all(corpus["revision"] for corpus in content["corpora"])
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "published, not measured here" in page
    assert "Parakeet-TDT-0.6B" in page


def test_a_changed_set_is_downloaded_again(tmp_path: Path) -> None:
    assert len(benchmarks.open_set(files("kan", tmp_path))) == 3
    assert len(benchmarks.open_set(files("kan", tmp_path, ROWS["kan"][:2]))) == 2


def test_an_unusable_row_is_reported_and_no_files_remain(tmp_path: Path, cache: Path) -> None:
    rows = [dict(row) for row in ROWS["kan"]]
    rows[1]["audio"] = {"bytes": b"no sound", "path": None}
    with pytest.raises(UsageError, match=r"cannot be decoded .*: a benchmark must be complete"):
        benchmarks.open_set(files("kan", tmp_path, rows))
    assert list(cache.iterdir()) == []


def test_the_error_for_a_gated_set_explains_access(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gated(*_: object, **__: object) -> None:
        raise ValueError("Cannot access gated repo: 403")

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", gated)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with pytest.raises(UsageError, match=r"eval-d1 .*: accept its licence at https://\S+ and set HF_TOKEN"):
        commands.evaluate.run("tiny", ["ivrit"], tmp_path / "out", EvaluationOptions())
    assert not (tmp_path / "out").exists()


def test_a_partial_set_is_not_compared_with_published_results(tmp_path: Path) -> None:
    outcome = commands.evaluate.run("tiny", [files("kan", tmp_path)], tmp_path / "out", EvaluationOptions(limit=2))
    assert "published, not measured here" not in outcome.path.read_text(encoding="utf-8")
    assert "2 of 3 utterances" in outcome.line


def test_a_script_data_set_is_read_from_the_hubs_converted_files(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, dict[str, str] | None]] = []

    def load_dataset(name: str, *_: object, data_files: dict[str, str] | None = None, **__: object) -> str:
        asked.append((name, data_files))
        if data_files is None:
            raise RuntimeError("Dataset scripts are no longer supported, but found fleurs.py")
        return "rows"

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda *_, **__: SimpleNamespace(sha="abc"))
    source = HuggingFaceSource(kind="huggingface", dataset="fleurs-he", split="test")
    assert source._hub(SimpleNamespace(load_dataset=load_dataset)) == "rows"
    converted = "hf://datasets/google/fleurs@refs%2Fconvert%2Fparquet/he_il/test/*.parquet"
    assert asked == [("google/fleurs", None), ("parquet", {"train": converted})]


def test_a_manifest_can_be_evaluated_directly(manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole file, a part of one, and segments; after a change, it is read again."""
    lines = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
    lines[0]["text"] = "[רעש] שלום, עולם!"
    lines[1] |= {"start": 0.5, "end": 1.25}
    lines[2].pop("text")
    lines[2]["segments"] = [{"start": 0, "end": 1, "text": "תודה"}, {"start": 1, "end": 2, "text": "רבה"}]
    manifest.write_text("\n".join(json.dumps(line) for line in lines), encoding="utf-8")
    corpus = benchmarks.open_manifest(manifest)
    assert corpus.column("text") == ["[רעש] שלום, עולם!", "מה שלומך היום", "תודה", "רבה"]
    assert corpus.numbers("seconds").tolist() == pytest.approx([2.0, 0.75, 1.0, 1.0], abs=0.01)
    assert commands.evaluate.run("tiny", [str(manifest)], tmp_path / "out").summary["utterances"] == 4
    manifest.write_text(json.dumps(lines[0]), encoding="utf-8")
    assert len(benchmarks.open_manifest(manifest)) == 1
    manifest.write_text('{"audio": "nowhere.wav", "text": "שלום"}', encoding="utf-8")
    with pytest.raises(UsageError, match=r"nowhere.wav cannot be decoded .* must be complete"):
        benchmarks.open_manifest(manifest)
    manifest.write_text("", encoding="utf-8")
    with pytest.raises(UsageError, match=r"manifest has no utterances"):
        benchmarks.open_manifest(manifest)


def test_a_manifest_keeps_its_contexts_and_word_times(manifest: Path) -> None:
    """Trap: an evaluation of a manifest decoded without the hotwords that its lines have."""

    lines = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
    lines[0] |= {"context": "שמות", "previous": "לפני כן", "words": [["שלום", 0.2, 0.8], ["עולם", 0.9, 1.5]]}
    manifest.write_text("\n".join(json.dumps(line, ensure_ascii=False) for line in lines), encoding="utf-8")
    first = benchmarks.open_manifest(manifest).utterance(0)
    assert (first.context, first.previous) == ("שמות", "לפני כן")
    assert first.words == (Word("שלום", 0.2, 0.8), Word("עולם", 0.9, 1.5))


def test_a_manifest_is_evaluated_in_its_language(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a language, two Spanish clips were once scored as Hebrew, with every file as its own group."""
    monkeypatch.setenv("CASPI_CACHE", str(tmp_path / "cache"))
    lines = []
    for number, text in enumerate(("buenos dias a todos", "la casa está cerca del mar")):
        spoken = speak(text, "es", Voice("m1"))
        soundfile.write(tmp_path / f"{number}.wav", spoken.samples, spoken.sample_rate)
        lines.append(json.dumps({"audio": f"{number}.wav", "text": text, "client_id": "dana"}))
    path = tmp_path / "m.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(UsageError, match="2 lines name no language, and their letters are not Hebrew: give --language"):
        commands.evaluate.run("tiny", [str(path)], tmp_path / "out")
    options = EvaluationOptions(language="es")
    summary = commands.evaluate.run("tiny", [str(path)], tmp_path / "out", options).summary
    assert summary["language"] == "Spanish"
    assert summary["fair"]["wer"] < 0.7
    assert summary["independent"] == 1
    assert "groups by client_id" in capsys.readouterr().err
    other = EvaluationOptions(language="es", group_key="audio")
    assert commands.evaluate.run("tiny", [str(path)], tmp_path / "out", other).summary["independent"] == 2


def test_a_group_key_that_no_line_has_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "some.jsonl"
    path.write_text('{"audio": "a.wav", "text": "שלום", "voice": "a"}\n', encoding="utf-8")
    with pytest.raises(UsageError, match="--group-key nope: no line of"):
        benchmarks.open_manifest(path, None, "nope")
