"""The page on which users listen to augmentation."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import numpy as np
import pytest

from caspi import commands
from caspi.audio import decode_flac
from caspi.corpus.store import Corpus
from caspi.errors import CaspiError, UsageError
from caspi.model.features import EDGE
from caspi.model.loading import LoadedModel
from caspi.training.config import stage_seed
from caspi.training.data.dataset import TrainingSet
from caspi.training.data.stage_plan import plan_stage
from caspi.training.data.steps import PlannedSteps
from tests.support import run_recipe

AUGMENT = "train.augment={gain_db: [-6, -6], silence: {seconds: [0.5, 0.5], probability: 0}, spec_augment: {}}"


def test_the_page_has_each_effect_alone_and_as_trained_on(small_corpus: Path, tmp_path: Path) -> None:
    done = commands.augment_preview.run(run_recipe(tmp_path, small_corpus, AUGMENT), "all", 2, tmp_path / "page")
    page = done.path.read_text(encoding="utf-8")
    hows = re.findall(r"<td[^>]*>(as it is|\w+ alone|as trained on, epoch \d)</td>", page)
    each = ["as it is", "silence alone", "gain alone", "as trained on, epoch 1", "as trained on, epoch 2"]
    assert hows == each * 2
    clips = [decode_flac(base64.b64decode(data)) for data in re.findall(r"base64,([^\"]+)\"", page)]
    plain, silence, gain, first, second = clips[:5]
    assert len(silence) == len(plain) + 16_000, "applied alone whatever its probability"
    assert np.allclose(gain, plain * 10 ** (-6 / 20), atol=2e-4)
    assert np.array_equal(first, gain)
    assert np.array_equal(second, gain)


def test_the_played_clips_equal_those_of_training(small_corpus: Path, tiny: LoadedModel, tmp_path: Path) -> None:
    augment = "{speed: [0.8, 1.25], silence: {probability: 0.5}, gain_db: [-20, 0], noise: {snr_db: [10, 30]}}"
    made = run_recipe(tmp_path, small_corpus, f"train.augment={augment}", "seed=7", "train.stages.1.epochs=2")
    done = commands.augment_preview.run(made, "all", 1, tmp_path / "page")
    page, config = done.path.read_text(encoding="utf-8"), made.require_train()
    *_, first, second = [decode_flac(base64.b64decode(clip)) for clip in re.findall(r"base64,([^\"]+)\"", page)]
    data = TrainingSet.of(Corpus.open(small_corpus, "train"), tiny.prompt, config.max_seconds)
    plans, steps = plan_stage(data, config, config.stages[1], 1, stage_seed(7, 1))
    planned = PlannedSteps(data, plans, steps, 0, tiny.prompt, config, config.stages[1], stage_seed(7, 1))
    [identifier] = done.summary["ids"]
    for epoch, played in enumerate((first, second)):
        trained = planned.micro_batch(np.array([data.ids.index(identifier)]), epoch).audio.samples[0, EDGE:-EDGE]
        assert abs(len(trained) - len(played)) < 160
        assert np.allclose(trained[: len(played)], played[: len(trained)], atol=2e-4)
    assert len(first) != len(second)
    drawn = re.findall(r"snr db (\d+\.?\d*)", page)
    assert len(drawn) == 3, "alone, and in two epochs"
    assert all(10 <= float(value) <= 30 for value in drawn)
    assert re.search(r"speed (0\.8|1\.25), .*snr db [\d.]+, gain db -[\d.]+<", page)


def test_nothing_to_listen_to_is_an_error(small_corpus: Path, tmp_path: Path) -> None:
    made = run_recipe(tmp_path, small_corpus, "train.augment={spec_augment: {}}")
    with pytest.raises(UsageError, match=r"stage letters has no waveform augmentation; set one in train.augment"):
        commands.augment_preview.run(made, None, 1, tmp_path / "page")
    with pytest.raises(UsageError, match="--stage end: not one of letters, all"):
        commands.augment_preview.run(made, "end", 1, tmp_path / "page")


def test_a_second_speaker_needs_a_second_group(tmp_path: Path) -> None:
    source = "{kind: synthetic, utterances: 4, split: train, only: [max], seed: 1}"
    made = run_recipe(
        tmp_path, tmp_path / "corpus", f"corpus.sources=[{source}]", "train.augment={second_speaker: {}}"
    )  # fmt: skip
    commands.prepare.run(made)
    with pytest.raises(CaspiError, match=r"no second speaker in corpus .*all drawn utterances were of the same group"):
        commands.augment_preview.run(made, None, 1, tmp_path / "page")
