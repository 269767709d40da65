"""Training an aligner: `model.task: align` with everything that training promises."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from transformers import Qwen3ASRForTokenClassification

from caspi import commands
from caspi.alignment.align import Aligner
from caspi.corpus.pauses import without_pauses
from caspi.corpus.store import Corpus
from caspi.corpus.utterance import Word
from caspi.errors import UsageError
from caspi.model.aligner import load_aligner
from caspi.model.alignment import BIN_SECONDS
from caspi.model.config import ModelConfig
from caspi.model.letters import FRAME_SECONDS, IGNORED, SILENCE, LetterPrompt
from caspi.training.data.dataset import TrainingSet
from caspi.training.data.stage_plan import plan_stage
from caspi.training.data.steps import PlannedSteps
from tests.conftest import manifest_recipe
from tests.support import metrics, run_recipe

SLOTS = ("model.aligner=slots", "model.time_bins=100")
STAGE = "{name: align, epochs: 2, groups: {audio_layers: 1e-3, decoder_layers: 1e-3, embeddings: 1e-3, times: 3e-3}}"
CHANGES = ("model.task=align", f"train.stages=[{STAGE}]", "train.evaluate.every=3")


@pytest.fixture(scope="module", params=["letters", "slots"])
def kind(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """What a recipe needs for a kind of aligner."""
    return SLOTS if request.param == "slots" else ()


@pytest.fixture(scope="module")
def trained(kind: tuple[str, ...], small_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("aligner")
    commands.train.run(run_recipe(folder, small_corpus, *CHANGES, *kind))
    return folder / "train"


def test_times_come_nearer_to_the_true_ones(trained: Path) -> None:
    losses, shifts = metrics(trained, "loss"), metrics(trained, "eval_start_shift")
    assert losses[-1] < 0.8 * losses[0]
    assert shifts[-1] < shifts[0]
    found = json.loads((trained / "report.json").read_text())["stages"][0]["checkpoints"][-1]
    assert 0 < found["start_shift"] < 2
    assert 0 <= found["within_80_ms"] <= 1
    assert "mean distance from the true times" in (trained / "report.html").read_text(encoding="utf-8")


def test_best_is_an_aligner_that_plain_transformers_loads(trained: Path) -> None:
    model = Qwen3ASRForTokenClassification.from_pretrained(trained / "best")
    config = json.loads((trained / "best" / "config.json").read_text())
    assert config["architectures"] == ["Qwen3ASRForTokenClassification"]
    assert model.score.weight.shape[0] in (100, 204)
    card = (trained / "best" / "README.md").read_text(encoding="utf-8")
    assert "Forced aligner of the Qwen3-ASR family for Hebrew" in card
    assert "caspi align REPOSITORY" in card


def test_a_resumed_run_gives_the_same_losses(
    trained: Path, kind: tuple[str, ...], small_corpus: Path, tmp_path: Path
) -> None:
    shutil.copytree(trained, tmp_path / "train", symlinks=True)
    stage = tmp_path / "train" / "1-align"
    for folder in (stage, tmp_path / "train"):
        for later in [*folder.glob("stage.json"), *folder.glob("report.*"), *sorted(folder.glob("checkpoint-*"))[1:]]:
            shutil.rmtree(later) if later.is_dir() else later.unlink()
    commands.train.run(run_recipe(tmp_path, small_corpus, *CHANGES, *kind))
    assert metrics(tmp_path / "train", "loss") == pytest.approx(metrics(trained, "loss"), rel=1e-6)


def test_an_average_of_aligners_is_measured_like_its_parts(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "train", symlinks=True)
    outcome = commands.average.run(tmp_path / "train", 2)
    assert outcome.line.startswith("the average has starts ")
    Aligner.of(str(tmp_path / "train" / "best"), "cpu")


def test_words_move_with_speed_and_silence(small_corpus: Path, tmp_path: Path) -> None:
    """And every epoch draws which words have slots; at least one has."""
    augment = "train.augment={speed: [0.8, 1.25], silence: {seconds: [0.2, 0.5], probability: 0.5}}"
    made = run_recipe(tmp_path, small_corpus, *CHANGES, *SLOTS, augment)
    config = made.require_train()
    prompt = load_aligner(made.model).prompt
    data = TrainingSet.to_train_on(Corpus.open(small_corpus, "train"), prompt, config, 0)
    plans, steps = plan_stage(data, config, config.stages[0], 1, 0)
    planned = PlannedSteps(data, plans, steps, 0, prompt, config, config.stages[0], 0)
    fewer = 0
    for row in data.rows[:20].tolist():
        batch = planned.micro_batch(np.array([row]), 0)
        changes = plans[0].lengths.tempo_and_padding(row)
        true = [[t / changes.speed + changes.before for t in word[1:]] for word in data.words[row]]
        labels = (batch.labels.reshape(-1, 2) * BIN_SECONDS).tolist()
        assert labels, "at least one word has slots"
        fewer += len(labels) < len(true)
        nearest = [min(abs(a - b) + abs(c - d) for b, d in true) for a, c in labels]
        assert max(nearest) <= BIN_SECONDS + 1e-6
        assert len(batch.sequences.input_ids) <= plans[0].lengths.sequence_tokens[row]
    assert 0 < fewer < 20


def test_utterances_without_word_times_are_left_out_and_counted(
    manifest: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lines = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
    lines[0]["words"] = [["שלום", 0.2, 0.8], ["עולם", 0.9, 1.5]]
    manifest.write_text("\n".join(json.dumps(line, ensure_ascii=False) for line in lines), encoding="utf-8")
    made = manifest_recipe(manifest, tmp_path, "corpus.splits={validation: 0.0, test: 0.0, min_validation_hours: 0}")
    commands.prepare.run(made)
    prompt = load_aligner(ModelConfig(task="align")).prompt
    with caplog.at_level("WARNING"):
        data = TrainingSet.for_alignment(Corpus.open(made.corpus.path, "train"), prompt, 30.0)
    assert len(data.rows) == 1
    assert "2 utterances have no times of words" in caplog.text


def test_texts_with_more_letters_than_audio_are_left_out() -> None:
    prompt = load_aligner(ModelConfig(task="align")).prompt
    assert isinstance(prompt, LetterPrompt)
    words = [Word("שלום", 0.0, 0.1), Word("עולם", 0.1, 0.2)]
    assert prompt.fit(words, 0.16)
    assert not prompt.fit(words, 0.15)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("train.no_speech={share: 0.1}", "train.no_speech has no effect with model.task: align"),
        ("train.timestamps=0.5", "train.timestamps has no effect"),
        ("train.stages.0.objective={kind: sequence}", "the only objective is cross_entropy"),
        ("model.time_bins=100", "time_bins is only for task: align with aligner: slots"),
    ],
)
def test_keys_that_an_aligner_cannot_use_are_refused(
    change: str, message: str, small_corpus: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        commands.train.run(run_recipe(tmp_path, small_corpus, *CHANGES, change))


def test_a_recogniser_has_no_group_of_times(small_corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"groups.times: only an aligner has it"):
        commands.train.run(run_recipe(tmp_path, small_corpus, "train.stages.0.groups={times: 1e-3}"))


def test_a_dry_run_shows_the_aligners_shape(small_corpus: Path, tmp_path: Path) -> None:
    found = commands.train.dry_run(run_recipe(tmp_path, small_corpus, *CHANGES)).summary
    assert {row["group"] for row in found["stages"][0]["groups"]} >= {"times", "decoder_layers"}
    assert next(row for row in found["stages"][0]["groups"] if row["group"] == "times")["parameters"] == 204 * 128


def test_letters_move_with_speed_and_silence(small_corpus: Path, tmp_path: Path) -> None:
    """Where a word is, its letters are the labels; before the first and after the last is silence."""
    augment = "train.augment={speed: [0.8, 1.25], silence: {seconds: [0.2, 0.5], probability: 1.0}}"
    made = run_recipe(tmp_path, small_corpus, *CHANGES, augment)
    config = made.require_train()
    prompt = load_aligner(made.model).prompt
    assert isinstance(prompt, LetterPrompt)
    data = TrainingSet.to_train_on(Corpus.open(small_corpus, "train"), prompt, config, 0)
    plans, steps = plan_stage(data, config, config.stages[0], 1, 0)
    planned = PlannedSteps(data, plans, steps, 0, prompt, config, config.stages[0], 0)
    for row in data.rows[:10].tolist():
        batch = planned.micro_batch(np.array([row]), 0)
        changes = plans[0].lengths.tempo_and_padding(row)
        labels = batch.labels[batch.labels != IGNORED].numpy()
        for word in without_pauses(data.words[row], data.corpus.samples(row)):
            first, last = (round((t / changes.speed + changes.before) / FRAME_SECONDS) for t in word[1:])
            assert list(dict.fromkeys(labels[first:last].tolist())) == list(dict.fromkeys(prompt.spelling(word.text)))
        silent = int(changes.before / FRAME_SECONDS)
        assert (labels[: silent - 1] == SILENCE).all()
        assert (
            len(batch.labels) <= data.target_tokens[row] / changes.speed + 4 * 13 * (changes.before + changes.after) + 8
        )
