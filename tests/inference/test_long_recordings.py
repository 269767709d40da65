"""Ten minutes in one recording, heard as well as the same speech in clips."""

from __future__ import annotations

import numpy as np
import pytest

from caspi import commands, recipe
from caspi.audio import SAMPLE_RATE
from caspi.corpus.store import Corpus
from caspi.evaluation.scoring import score_corpus
from caspi.inference.transcriber import Transcriber
from caspi.language import language
from tests.conftest import RECIPES


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Corpus]:
    """The demo on two dozen sentences of one voice, which half a minute is enough for, and those sentences."""
    folder = tmp_path_factory.mktemp("dozens")
    made = recipe.load(
        RECIPES / "demo.yaml",
        (
            f"corpus.path={folder / 'corpus'}", f"train.path={folder / 'train'}", "corpus.workers=1",
            "corpus.sources.0.utterances=24", "corpus.sources.0.only=[m1]", "corpus.sources.0.rate=[170, 170]",
            "corpus.sources.0.pitch=[50, 50]", "corpus.sources.0.without=[]", "corpus.sources.1.utterances=4",
            "corpus.sources.2.utterances=4", "train.effective_batch=12", "train.track=[]", "train.evaluate.every=1000",
            "train.evaluate.utterances=4", "train.stages.0.epochs=10", "train.stages.1.epochs=70",
            "train.augment.noise=null", "train.augment.spec_augment=null",
        ),
    )  # fmt: skip
    commands.prepare(made)
    return str(commands.train(made).summary["final"]), Corpus.open(folder / "corpus", "train")


@pytest.mark.slow
def test_ten_minutes_are_heard_as_well_as_their_sentences(trained: tuple[str, Corpus]) -> None:
    model, corpus = trained
    draw = np.random.default_rng(0)
    rows, pieces = [], [np.zeros(0, np.float32)]
    while sum(map(len, pieces)) < 600 * SAMPLE_RATE:
        rows.append(int(draw.integers(len(corpus))))
        pieces += [corpus.samples(rows[-1]), np.zeros(int(draw.uniform(0.3, 0.8) * SAMPLE_RATE), np.float32)]
    transcriber = Transcriber.of(model)
    clips = [corpus.samples(row) for row in rows]
    short = transcriber.transcribe(clips, languages=["Hebrew"] * len(clips))
    [long] = transcriber.transcribe([np.concatenate(pieces)], languages=["Hebrew"])
    said = " ".join(corpus.utterance(row).text for row in rows)

    def wer(heard: str) -> float:
        return score_corpus([said], [heard], ["all"], language("Hebrew"))["leaderboard"].wer

    one_by_one = wer(" ".join(one.text for one in short))
    assert one_by_one < 0.2
    assert wer(long.text) <= one_by_one + 0.01
    assert long.seconds >= 600
    assert long.truncated == 0
