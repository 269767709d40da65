from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from caspi import commands
from caspi.corpus.store import Corpus
from caspi.errors import UsageError
from tests.conftest import manifest_recipe
from tests.support import CHROMIUM


def test_info_counts_the_corpus(small_corpus: Path) -> None:
    summary = commands.corpus.info(small_corpus).summary
    report = json.loads((small_corpus / "report.json").read_text())
    assert {name: split["utterances"] for name, split in summary["splits"].items()} == {
        name: split["utterances"] for name, split in report["splits"].items()
    }
    train = Corpus.open(small_corpus, "train")
    assert summary["splits"]["train"]["groups"] == len(set(train.column("group")))
    low, high = (summary["distributions"]["seconds"][n] for n in (0, -1))
    every = np.concatenate([Corpus.open(small_corpus, split).numbers("seconds") for split in summary["splits"]])
    assert (low, high) == (every.min(), every.max())


def test_a_sample_is_a_page_with_players(small_corpus: Path, tmp_path: Path) -> None:
    page = commands.corpus.sample(small_corpus, 5, 0, None, tmp_path / "sample").path
    html = page.read_text(encoding="utf-8")
    assert html.count("<audio") == 5
    assert len(re.findall(r'src="data:audio/flac;base64,[A-Za-z0-9+/=]+"', html)) == 5
    again = commands.corpus.sample(small_corpus, 5, 0, None, tmp_path / "again").summary["ids"]
    other = commands.corpus.sample(small_corpus, 5, 1, None, tmp_path / "other").summary["ids"]
    assert json.loads((tmp_path / "sample" / "report.json").read_text())["ids"] == again != other
    with pytest.raises(UsageError, match="--split dev"):
        commands.corpus.sample(small_corpus, 5, 0, "dev", tmp_path / "x")


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium, or no playwright (extra dev)")
def test_a_browser_plays_the_sample(small_corpus: Path, tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    page_file = commands.corpus.sample(small_corpus, 3, 0, None, tmp_path / "sample").path
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        )
        page = browser.new_page(viewport={"width": 1200, "height": 900})
        page.goto(page_file.as_uri())
        script = """async () => { const found = [];
            for (const player of document.querySelectorAll('audio')) { player.preload = 'metadata'; player.load();
              await new Promise(done => { player.onloadedmetadata = done; player.onerror = done; });
              found.push(player.duration); } return found; }"""
        durations = page.evaluate(script)
        assert page.evaluate("getComputedStyle(document.querySelector('td.speech')).unicodeBidi") == "plaintext"
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        browser.close()
    ids = json.loads((tmp_path / "sample" / "report.json").read_text())["ids"]
    every = {
        u.id: u.seconds
        for split in ("train", "validation", "test")
        for corpus in [Corpus.open(small_corpus, split)]  # type: ignore[arg-type]
        for u in map(corpus.utterance, range(len(corpus)))
    }
    assert durations == pytest.approx([every[i] for i in ids], abs=0.01)


def test_the_official_scripts_jsonl_round_trips(small_corpus: Path, tmp_path: Path) -> None:
    out = commands.corpus.export(small_corpus, "jsonl", tmp_path / "jsonl").path
    corpus = Corpus.open(small_corpus, "train")
    lines = [json.loads(line) for line in (out / "train.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(lines) == len(corpus)
    for row in (0, len(corpus) - 1):
        assert lines[row]["text"] == f"language Hebrew<asr_text>{corpus.utterance(row).text}"
        samples, rate = soundfile.read(lines[row]["audio"], dtype="float32")
        assert rate == 16_000
        assert np.array_equal(samples, corpus.samples(row))
    folder = tmp_path / "again"
    folder.mkdir()
    summary = commands.prepare.run(manifest_recipe(out / "train.jsonl", folder)).summary
    assert summary["kept"] == len(corpus)
    with pytest.raises(UsageError, match="--to parquet"):
        commands.corpus.export(small_corpus, "parquet", tmp_path / "x")


def test_a_dry_push_lists_files_and_shows_the_card(small_corpus: Path) -> None:
    summary = commands.corpus.push(small_corpus, "me/demo", True, True).summary
    assert {file["file"] for file in summary["files"]} >= {"train-00000.arrow", "report.json", "README.md"}
    assert "path: train-*.arrow" in summary["card"]
    assert "maqaf: keep" in summary["card"]
    assert "synthetic" in summary["card"]


def test_a_card_can_be_read_by_datasets(small_corpus: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    folder = tmp_path / "hub"
    shutil.copytree(small_corpus, folder)
    (folder / "README.md").write_text(commands.corpus.push(small_corpus, "me/demo", True, True).summary["card"])
    loaded = datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))
    assert {name: len(split) for name, split in loaded.items()} == {
        name: len(Corpus.open(small_corpus, name))
        for name in ("train", "validation", "test")  # type: ignore[arg-type]
    }


def test_a_folder_without_a_corpus_is_an_error(tmp_path: Path) -> None:
    for command in (
        lambda: commands.corpus.info(tmp_path),
        lambda: commands.corpus.push(tmp_path, "me/x", True, True),
        lambda: commands.corpus.export(tmp_path, "jsonl", tmp_path / "out"),
    ):
        with pytest.raises(UsageError, match="is not a corpus: make one with caspi prepare"):
            command()
