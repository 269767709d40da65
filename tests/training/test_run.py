"""Runs: stages, checkpoints, schedules, and the contents of a run folder."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoProcessor, Qwen3ASRForConditionalGeneration

from caspi import atomic_output, commands
from caspi.corpus.store import Corpus
from caspi.errors import CaspiError, UsageError
from caspi.model.loading import TINY, LoadedModel
from caspi.training.checkpoint import files as checkpoints
from caspi.training.config import Schedule, StageConfig, TrainConfig
from caspi.training.data.dataset import TrainingSet
from caspi.training.data.stage_plan import plan_stage
from caspi.training.optim.build import build, schedule
from caspi.training.results import Measurement
from caspi.training.validation import Validation
from tests.support import logged, metrics, run_recipe


def test_metrics_contain_stage_step_and_rates(small_run: Path) -> None:
    rows = [json.loads(line) for line in (small_run / "metrics.jsonl").read_text().splitlines()]
    losses = [row for row in rows if "loss" in row]
    assert [(r["stage"], r["step"]) for r in losses] == [
        *(("letters", n) for n in range(1, 4)),
        *(("all", n) for n in range(1, 7)),
    ]
    assert losses[0]["lr"].keys() == {"projector", "embeddings"}
    assert losses[-1]["lr"].keys() == {"audio_front", "audio_layers", "projector", "decoder_layers", "embeddings"}
    assert all({"grad_norm", "audio_seconds_per_second"} <= row.keys() for row in losses)


def test_a_checkpoint_loads_with_plain_transformers(small_run: Path, small_corpus: Path) -> None:
    folder = Path(json.loads((small_run / "report.json").read_text())["final"])
    model = Qwen3ASRForConditionalGeneration.from_pretrained(folder)
    processor = AutoProcessor.from_pretrained(folder)
    samples = Corpus.open(small_corpus, "test").samples(0)
    inputs = processor.apply_transcription_request(samples)
    tokens = model.generate(**inputs, max_new_tokens=4)
    assert tokens.shape[1] > inputs["input_ids"].shape[1]
    assert model.config.architectures == ["Qwen3ASRForConditionalGeneration"]


def test_each_stage_trains_its_groups_and_nothing_else(small_run: Path) -> None:
    """Trap: freezing by substring; a rebuilt optimizer that hides the new parameters."""
    start = load_file(TINY / "model.safetensors")
    first = load_file(checkpoints.complete_checkpoints(small_run / "1-letters")[-1] / "model.safetensors")
    last = load_file(checkpoints.complete_checkpoints(small_run / "2-all")[-1] / "model.safetensors")
    moved_first = {n for n in start if not torch.equal(first[n].float(), start[n].float())}
    assert {n.split(".")[1] if "embed" not in n else "embeddings" for n in moved_first} == {
        "multi_modal_projector", "embeddings",
    }  # fmt: skip
    moved_last = {n for n in start if not torch.equal(last[n].float(), first[n].float())}
    assert moved_last == set(start)


def test_the_best_and_the_last_are_kept(tmp_path: Path) -> None:
    for step, wer in [(10, 0.5), (20, 0.2), (30, 0.3), (40, 0.9), (50, 0.6)]:
        staged = tmp_path / ".partial"
        staged.mkdir()
        (staged / "model.safetensors").write_bytes(b"x")
        checkpoints.make_visible(staged, tmp_path / f"checkpoint-{step}", {"wer": wer, "loss": 1.0})
    checkpoints.prune_checkpoints(tmp_path, keep=2)
    assert [checkpoints.step_of(path) for path in checkpoints.complete_checkpoints(tmp_path)] == [20, 30, 50]
    assert [checkpoints.step_of(path) for path in checkpoints.best_checkpoints(tmp_path, 2)] == [20, 30]


def test_a_half_written_checkpoint_is_invisible(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-10").mkdir()
    (tmp_path / "checkpoint-10" / "model.safetensors").write_bytes(b"half")
    assert checkpoints.complete_checkpoints(tmp_path) == []


@pytest.mark.slow
def test_the_loss_curve_depends_only_on_the_effective_batch(small_corpus: Path, tmp_path: Path) -> None:
    """Trap: loss not divided by accumulation. Micro-batches of 6 s or of 240 s: the same loss curve."""
    curves = []
    for budget in (6, 240):
        folder = tmp_path / str(budget)
        made = run_recipe(
            folder, small_corpus, f"train.max_batch_seconds={budget}", "train.stages.0.epochs=1",
            "train.stages.1.epochs=0.2", "train.evaluate.every=100", "train.precision=fp32",
        )  # fmt: skip
        commands.train.run(made)
        curves.append(metrics(folder / "train", "loss"))
    assert np.allclose(curves[0], curves[1], rtol=1e-4)


def test_another_recipe_in_the_same_folder_is_refused(small_run: Path, small_corpus: Path) -> None:
    made = run_recipe(small_run.parent, small_corpus, "train.effective_batch=4")
    with pytest.raises(UsageError, match=r"holds another run \(train.effective_batch: 4, was 8\)"):
        commands.train.run(made)


def test_another_corpus_under_the_same_path_is_refused(small_corpus: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    shutil.copytree(small_corpus, corpus)
    made = run_recipe(tmp_path, corpus, "train.stages.0.epochs=0.1", "train.stages.1.epochs=0.1")
    commands.train.run(made)
    content = json.loads((corpus / "report.json").read_text())
    content["splits"]["train"]["fingerprint"] = "another"
    (corpus / "report.json").write_text(json.dumps(content))
    with pytest.raises(UsageError, match=r"holds another run \(corpus\.train: "):
        commands.train.run(made)


def test_workers_and_logging_may_change_between_sessions(small_run: Path, small_corpus: Path) -> None:
    made = run_recipe(small_run.parent, small_corpus, "train.log_every=7", "train.workers=1")
    assert commands.train.run(made).summary["final"].endswith("checkpoint-6")


def test_average_is_the_mean_in_float64(small_run: Path) -> None:
    outcome = commands.average.run(small_run, 2)
    parts = [load_file(Path(part["path"]) / "model.safetensors") for part in outcome.summary["parts"]]
    assert len(parts) == 2
    mean = load_file(small_run / "average" / "model.safetensors")
    assert "lm_head.weight" not in mean
    for name, tensor in mean.items():
        expected = (sum(part[name].double() for part in parts) / 2).float()
        assert torch.equal(tensor.float(), expected)
    Qwen3ASRForConditionalGeneration.from_pretrained(small_run / "average")
    assert "average of 2 checkpoints" in (small_run / "average" / "README.md").read_text()
    shutil.rmtree(small_run / "average")


def test_a_weighted_average_is_evaluated_like_its_parts(small_run: Path) -> None:
    """With all weight on the best checkpoint, weights and evaluation are exactly those from training."""
    outcome = commands.average.run(small_run, 3, [1.0, 0.0, 0.0])
    best = outcome.summary["parts"][0]
    for name in ("wer", "cer", "loss"):
        assert outcome.summary["measured"][name] == best[name]
    better = [part for part in outcome.summary["parts"] if (part["wer"], part["loss"]) > (best["wer"], best["loss"])]
    assert outcome.summary["better_than"] == len(better)
    outcome = commands.average.run(small_run, 2, [3.0, 1.0])
    first, second = (load_file(Path(part["path"]) / "model.safetensors") for part in outcome.summary["parts"])
    for name, tensor in load_file(small_run / "average" / "model.safetensors").items():
        assert torch.equal(tensor, ((first[name].double() * 3 + second[name].double()) / 4).float())
    with pytest.raises(UsageError, match="--weights: 3 given for 2 checkpoints"):
        commands.average.run(small_run, 2, [1.0, 1.0, 1.0])
    shutil.rmtree(small_run / "average")


def test_shuffled_transcripts_give_every_utterance_another_text(small_corpus: Path, tiny: LoadedModel) -> None:
    corpus = Corpus.open(small_corpus, "train")
    least = {"path": "x", "stages": [{"name": "s", "groups": {"projector": 1e-3}}]}
    configs = (TrainConfig.model_validate(least | {"shuffle_transcripts": shuffled}) for shuffled in (False, True))
    right, control = (TrainingSet.to_train_on(corpus, tiny.prompt, config, 3) for config in configs)
    assert sorted(right.texts) == sorted(control.texts)
    assert sum(a == b for a, b in zip(right.texts, control.texts, strict=True)) <= 1


def test_norms_and_biases_have_no_weight_decay(tiny: LoadedModel) -> None:
    from caspi.model.config import GroupTraining
    from caspi.model.groups import select

    groups = select(tiny.model, {"audio_layers": GroupTraining(lr=1e-3), "projector": GroupTraining(lr=2e-3)})
    optimizer = build(tiny.model, groups, StageConfig(name="s", groups={"projector": 1e-3}, weight_decay=0.1))
    for group in optimizer.param_groups:
        assert all((p.ndim > 1) == (group["weight_decay"] > 0) for p in group["params"])
    assert {(g["group"], g["lr"]) for g in optimizer.param_groups} == {("audio_layers", 1e-3), ("projector", 2e-3)}


def test_best_points_to_the_better_of_the_average_and_its_parts(
    small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    shutil.copytree(small_run, run, symlinks=True)
    best = checkpoints.best_checkpoints(run / "2-all", 1)[0]
    assert (run / "best").resolve() == best.resolve()
    for wer, expected in ((99.0, best), (-1.0, run / "average")):
        found = Measurement(loss=1.0, wer=wer, cer=1.0, truncated=0.0)
        monkeypatch.setattr("caspi.training.validation.measure_checkpoint", lambda *_, found=found: found)
        outcome = commands.average.run(run, 2)
        assert outcome.path == run / "best"
        assert (run / "best").resolve() == expected.resolve()
        assert ("; use " in outcome.line) is (expected == best)


def test_the_logged_epoch_counts_passes_over_the_data(small_run: Path, small_corpus: Path) -> None:
    """Two epochs end at 2, not at 1; half an epoch ends at a half."""
    ends = {stage: max(row["epoch"] for row in logged(small_run, "epoch", stage)) for stage in ("letters", "all")}
    assert ends == {"letters": pytest.approx(0.5, abs=0.1), "all": 1.0}
    steps = {row["step"]: row["epoch"] for row in logged(small_run, "loss", "all")}
    assert all(epoch == pytest.approx(step / max(steps)) for step, epoch in steps.items())


def test_the_logged_rate_is_that_of_the_step(small_run: Path) -> None:
    rows = logged(small_run, "lr", "all")
    assert rows[0]["step"] == 1
    assert all(rate == 0 for rate in rows[0]["lr"].values())  # a warmup begins at 0


@pytest.mark.parametrize("warmup", [5, 30, 60, 500])
def test_a_warmup_that_overlaps_the_decay_makes_no_jump(warmup: int) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    made = Schedule(kind="warmup-stable-decay", warmup_steps=warmup, decay_ratio=0.5)
    plan = schedule(optimizer, made, 100)
    rates = []
    for _ in range(100):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        plan.step()
    assert max(rates) == 1
    assert max(abs(one - other) for one, other in itertools.pairwise(rates)) <= 1.6 / min(
        warmup, 50
    )  # a cosine is steepest in its middle


@pytest.mark.parametrize("kind", ["constant", "linear", "cosine", "warmup-stable-decay"])
def test_schedules_warm_up_and_end_where_they_should(kind: str) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    plan = schedule(optimizer, Schedule(kind=kind, warmup_ratio=0.1, decay_ratio=0.5), 100)
    rates = []
    for _ in range(100):
        rates.append(plan.get_last_lr()[0])
        optimizer.step()
        plan.step()
    assert rates[0] == 0.0
    assert max(rates) == pytest.approx(1.0)
    assert rates[10] == pytest.approx(1.0)
    assert rates[-1] == (1.0 if kind == "constant" else pytest.approx(0.0, abs=0.02))


def test_two_warmups_are_an_error() -> None:
    with pytest.raises(ValueError, match="keep one"):
        Schedule(warmup_steps=10, warmup_ratio=0.1)


def test_more_processes_than_utterances_is_an_error(small_corpus: Path, tiny: LoadedModel, tmp_path: Path) -> None:
    config = run_recipe(tmp_path, small_corpus).require_train()
    data = TrainingSet.of(Corpus.open(small_corpus, "train"), tiny.prompt, 15.0)
    with pytest.raises(UsageError, match="leaves some of 16 processes without an utterance"):
        plan_stage(data, config, config.stages[0], 16, 0)


def test_the_error_names_a_damaged_checkpoint(small_corpus: Path, tmp_path: Path) -> None:
    made = run_recipe(tmp_path, small_corpus)
    commands.train.run(made)
    folder = tmp_path / "train" / "2-all"
    (tmp_path / "train" / "report.json").unlink()
    (folder / "stage.json").unlink()
    last = checkpoints.complete_checkpoints(folder)[-1]
    weights = last / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(
        CaspiError, match=r"cannot resume from checkpoint .*checkpoint-6 .* resumes from the one before"
    ):
        commands.train.run(made)
    shutil.rmtree(last)
    assert commands.train.run(made).summary["final"] == str(last)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["train.stages.1.groups={decoder_layers: {lr: 1e-3, top: 9}}"], "top: 9 layers, but the model has only 4"),
        (["train.mixes={m: {sources: {nosuch: 1.0}}}", "train.stages.1.mix=m"], "no utterances of nosuch"),
        (["train.path=/proc/nowhere"], "/proc/nowhere cannot be written .*: set train.path to another folder"),
    ],
)
def test_a_mistake_in_the_last_stage_is_found_before_the_first(
    small_corpus: Path, tmp_path: Path, overrides: list[str], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        commands.train.run(run_recipe(tmp_path, small_corpus, *overrides))
    assert not (tmp_path / "train").exists()


def test_a_validation_split_with_only_long_clips_is_refused(
    small_corpus: Path, tiny: LoadedModel, tmp_path: Path
) -> None:
    config = run_recipe(tmp_path, small_corpus, "train.max_seconds=0.1").require_train()
    with pytest.raises(UsageError, match=r"no validation utterance is within train\.max_seconds = 0.1"):
        Validation(Corpus.open(small_corpus, "validation"), tiny.prompt, config, None, "Hebrew")


def test_memory_settings_may_change_when_a_run_is_resumed(small_run: Path, small_corpus: Path) -> None:
    """They cut the same effective batches differently; users change them after out of memory."""
    made = run_recipe(
        small_run.parent, small_corpus, "train.max_batch_seconds=7", "train.activation_checkpointing_every=1"
    )
    assert commands.train.run(made).summary["final"].startswith(str(small_run))


def test_two_trainings_at_once_in_one_folder_are_refused(small_run: Path, small_corpus: Path) -> None:
    made = run_recipe(small_run.parent, small_corpus)
    with atomic_output.locked(small_run, "train"), pytest.raises(UsageError, match="another caspi train is running in"):
        commands.train.run(made)


def test_a_moved_run_reports_its_new_paths(small_run: Path, small_corpus: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    shutil.copytree(small_run, moved)
    summary = commands.train.run(run_recipe(tmp_path, small_corpus, f"train.path={moved}")).summary
    assert summary["final"].startswith(str(moved))
    assert all(found["path"].startswith(str(moved)) for stage in summary["stages"] for found in stage["checkpoints"])


def test_truncated_summary_files_are_handled(small_run: Path, small_corpus: Path, tmp_path: Path) -> None:
    """A truncated stage.json means that the stage is not complete; a truncated run.json is an error."""
    run = tmp_path / "train"
    shutil.copytree(small_run, run)
    cut = (run / "2-all" / "stage.json").read_text()
    (run / "2-all" / "stage.json").write_text(cut[:20])
    again = commands.train.run(run_recipe(tmp_path, small_corpus)).summary
    assert [found["wer"] for found in again["stages"][1]["checkpoints"]] == [
        found["wer"] for found in json.loads(cut)["checkpoints"]
    ]
    (run / "run.json").write_text("")
    with pytest.raises(UsageError, match=r"run\.json is damaged"):
        commands.train.run(run_recipe(tmp_path, small_corpus))


def test_an_interrupted_deletion_leaves_nothing_that_looks_complete(tmp_path: Path) -> None:
    for step, wer in ((1, 0.9), (2, 0.1), (3, 0.5)):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "metrics.json").write_text(json.dumps({"wer": wer, "loss": wer}))
    (tmp_path / ".checkpoint-9.removed").mkdir()  # left by an interrupted deletion
    seen = []
    real = shutil.rmtree

    def rmtree(path: Path, **options: bool) -> None:
        seen.append(Path(path).name)
        real(path, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("caspi.atomic_output.shutil.rmtree", rmtree)
        checkpoints.prune_checkpoints(tmp_path, 1)
    assert [path.name for path in checkpoints.complete_checkpoints(tmp_path)] == ["checkpoint-2", "checkpoint-3"]
    assert all(name.startswith(".") for name in seen)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-2", "checkpoint-3"]
