"""A ten-minute recording is recognised as well as the same speech in clips."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from caspi import audio, commands, recipe
from caspi.audio import SAMPLE_RATE
from caspi.corpus.sources.catalogue import CATALOGUE
from caspi.corpus.store import Corpus
from tests.conftest import RECIPES


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Corpus]:
    """The demo trained on eight sentences of one voice, which takes half a minute, and those sentences."""
    folder = tmp_path_factory.mktemp("dozens")
    made = recipe.load(
        RECIPES / "demo.yaml",
        (
            f"corpus.path={folder / 'corpus'}", f"train.path={folder / 'train'}", "corpus.workers=1",
            "corpus.sources.0.utterances=8", "corpus.sources.0.only=[m1]", "corpus.sources.0.rate=[170, 170]",
            "corpus.sources.0.pitch=[50, 50]", "corpus.sources.0.without=[]", "corpus.sources.1.utterances=4",
            "corpus.sources.2.utterances=4", "train.effective_batch=4", "train.track=[]", "train.evaluate.every=1000",
            "train.evaluate.utterances=4", "train.stages.0.epochs=10", "train.stages.1.epochs=80",
            "train.augment.noise={snr_db: [30, 60]}", "train.augment.spec_augment=null",
        ),
    )  # fmt: skip
    commands.prepare.run(made)
    return str(commands.train.run(made).summary["final"]), Corpus.open(folder / "corpus", "train")


def parquet(folder: Path, name: str, spoken: Sequence[tuple[np.ndarray, str]]) -> str:
    """Writes a benchmark set of these clips in the layout of the Hub; returns the name to request it by."""
    known = CATALOGUE[name]
    rows = [
        {"audio": {"bytes": audio.encode_flac(audio.pcm16(samples)), "path": f"{n}.flac"}, known.text[0]: text}
        for n, (samples, text) in enumerate(spoken)
    ]
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist(rows), folder / f"{known.split}-0.parquet")
    return f"{name}@{folder}"


@pytest.mark.slow
def test_a_ten_minute_recording_is_recognised_as_well_as_its_sentences(
    trained: tuple[str, Corpus], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one recording of eval-d1 and as clips of another set, both with `caspi evaluate`; the pauses have the noise of
    a good microphone."""
    model, corpus = trained
    draw = np.random.default_rng(0)
    clips: list[tuple[np.ndarray, str]] = []
    pieces: list[np.ndarray] = []
    while sum(map(len, pieces)) < 600 * SAMPLE_RATE:
        row = int(draw.integers(len(corpus)))
        clips.append((corpus.samples(row), corpus.utterance(row).text))
        pause = draw.standard_normal(int(draw.uniform(0.3, 0.8) * SAMPLE_RATE)) * 1e-4
        pieces += [clips[-1][0], pause.astype(np.float32)]
    whole = (np.concatenate(pieces), " ".join(text for _, text in clips))
    monkeypatch.setenv("CASPI_CACHE", str(tmp_path / "cache"))
    long, short = parquet(tmp_path / "long", "eval-d1", [whole]), parquet(tmp_path / "short", "kan", clips)
    found = commands.evaluate.run(model, [long, short], tmp_path / "out").summary
    wer = {name: part["leaderboard"]["wer"] for name, part in found["by_source"].items()}
    assert wer["kan"] < 0.2
    assert wer["eval-d1"] <= wer["kan"] + 0.01
    assert found["by_duration"]["30+ s"]["utterances"] == 1
    assert found["truncated"] == 0
