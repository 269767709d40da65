"""Faults of a long run: out of memory, non-finite losses, unreadable data, full disks, kills."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from caspi import commands, recipe
from caspi.corpus.store import Corpus
from caspi.errors import CaspiError
from caspi.interrupts import Interrupted
from caspi.model.batch import Batch
from caspi.model.loading import TINY, LoadedModel
from caspi.training.checkpoint import files as checkpoints
from caspi.training.data import steps
from caspi.training.objectives.cross_entropy import CrossEntropy
from caspi.training.validation import Validation
from tests.support import Forward, final_weights, lines, metrics, run_recipe, short, spoil

"""Faults of a long run: out of memory, non-finite losses, unreadable data, full disks, kills."""


def test_out_of_memory_changes_nothing_but_the_time(
    small_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The step is repeated in smaller micro-batches: the same gradients, the same curve; the lower budget is kept."""
    commands.train.run(short(tmp_path / "calm", small_corpus))
    held = []

    def forward(real: Forward, objective: CrossEntropy, batch: Batch) -> torch.Tensor:
        loss = real(objective, batch)
        if batch.seconds > 8:  # after the forward pass, as in most cases
            raise torch.OutOfMemoryError("CUDA out of memory")
        held.append(batch.seconds)
        return loss

    spoil(monkeypatch, forward)
    commands.train.run(short(tmp_path / "tight", small_corpus))
    calm, tight = tmp_path / "calm" / "train", tmp_path / "tight" / "train"
    assert np.allclose(metrics(calm, "loss"), metrics(tight, "loss"), rtol=1e-5)
    assert np.allclose(metrics(calm, "grad_norm"), metrics(tight, "grad_norm"), rtol=1e-4)
    lessons = lines(tight, "out_of_memory")
    for stage in ("letters", "all"):  # what fits depends on what is trained: every stage has its own budget
        budgets = [row["max_batch_seconds"] for row in lessons if row["stage"] == stage]
        assert budgets
        assert budgets == sorted(budgets, reverse=True)
    assert "out of memory: repeating the step" in capsys.readouterr().err
    assert json.loads((tight / "2-all" / "budget-0.json").read_text())["seconds"] <= 8
    assert not lines(calm, "out_of_memory")


def test_batches_that_workers_made_before_out_of_memory_are_cut_too(
    small_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers are steps ahead: otherwise every waiting step would run out of memory again."""

    def forward(real: Forward, objective: CrossEntropy, batch: Batch) -> torch.Tensor:
        if batch.seconds > 14:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(objective, batch)

    spoil(monkeypatch, forward)
    for workers in (0, 2):
        commands.train.run(short(tmp_path / str(workers), small_corpus, f"train.workers={workers}"))
    alone, ahead = (lines(tmp_path / workers / "train", "out_of_memory") for workers in ("0", "2"))
    assert alone
    assert ahead == alone


def test_out_of_memory_within_a_step_leaves_no_gradient_behind(
    small_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = ("train.max_batch_seconds=9", "train.stages.0.epochs=0.17")
    commands.train.run(short(tmp_path / "calm", small_corpus, *overrides))
    seen = []

    def forward(real: Forward, objective: CrossEntropy, batch: Batch) -> torch.Tensor:
        seen.append(batch)
        if len(seen) == 2 and len(batch.rows) > 1:  # one micro-batch has already added its gradient
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(objective, batch)

    spoil(monkeypatch, forward)
    commands.train.run(short(tmp_path / "tight", small_corpus, *overrides))
    assert len(lines(tmp_path / "tight" / "train", "out_of_memory")) == 1
    one, two = metrics(tmp_path / "calm" / "train", "grad_norm"), metrics(tmp_path / "tight" / "train", "grad_norm")
    assert np.allclose(one, two, rtol=1e-4)


def test_the_error_names_an_utterance_that_does_not_fit_alone(
    small_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forward(real: Forward, objective: CrossEntropy, batch: Batch) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    spoil(monkeypatch, forward)
    with pytest.raises(CaspiError, match=r"synthetic-11-he-\d+: does not fit the device's memory even alone"):
        commands.train.run(short(tmp_path, small_corpus))


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_non_finite_step_is_skipped_and_its_utterances_logged(
    small_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    bad: list[int] = []

    def forward(real: Forward, objective: CrossEntropy, batch: Batch) -> torch.Tensor:
        loss = real(objective, batch)
        bad[:] = bad or batch.rows[:1]
        if bad[0] not in batch.rows:
            return loss
        if what == "loss":
            return loss * float("nan")
        loss.register_hook(lambda gradient: gradient * float("inf"))
        return loss

    spoil(monkeypatch, forward)
    commands.train.run(short(tmp_path, small_corpus, "train.max_batch_seconds=5"))
    [skipped] = [row for row in lines(tmp_path / "train", "skipped") if row["stage"] == "letters"]
    name = Corpus.open(small_corpus, "train").utterance(bad[0]).id
    assert name in skipped["utterances"]
    assert len(skipped["utterances"]) < 8 if what == "loss" else len(skipped["utterances"]) == 8
    assert all(torch.isfinite(tensor).all() for tensor in final_weights(tmp_path / "train").values())


def test_a_skipped_step_changes_no_weight(small_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither momentum nor weight decay is applied."""
    spoil(monkeypatch, lambda real, objective, batch: real(objective, batch) * float("nan"))
    with pytest.raises(CaspiError, match="stage letters updated no weights: no step had a finite loss"):
        commands.train.run(short(tmp_path, small_corpus, "train.max_bad_steps=100", "train.stages.0.weight_decay=0.5"))
    start = load_file(TINY / "model.safetensors")
    [last] = sorted((tmp_path / "train" / "1-letters").glob("checkpoint-*"))[-1:]
    found = load_file(last / "model.safetensors")
    assert all(torch.equal(start[name].float(), tensor.float()) for name, tensor in found.items())


def test_too_many_skipped_steps_in_a_row_end_the_run_and_name_utterances(
    small_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, lambda real, objective, batch: real(objective, batch) * float("inf"))
    with pytest.raises(CaspiError, match=r"2 steps in a row .* synthetic-11-.*listen to these utterances"):
        commands.train.run(short(tmp_path, small_corpus, "train.max_bad_steps=2"))


class Disk:
    """A faulty disk: each row in `broken` fails the given number of times."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, broken: dict[int, int]) -> None:
        real = Corpus.samples

        def samples(corpus: Corpus, row: int) -> np.ndarray:
            if corpus.split == "train" and broken.get(row, 0) > 0:
                broken[row] -= 1
                raise OSError(5, "Input/output error")
            return real(corpus, row)

        monkeypatch.setattr(Corpus, "samples", samples)
        monkeypatch.setattr(steps, "_RETRY_AFTER", (0.0, 0.0))


def test_short_read_errors_change_nothing(small_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands.train.run(short(tmp_path / "calm", small_corpus))
    Disk(monkeypatch, dict.fromkeys(range(48), 2))
    commands.train.run(short(tmp_path / "stumbling", small_corpus))
    assert metrics(tmp_path / "calm" / "train", "loss") == metrics(tmp_path / "stumbling" / "train", "loss")
    assert not lines(tmp_path / "stumbling" / "train", "replaced")


def test_unreadable_utterances_are_replaced_and_counted(
    small_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = run_recipe(tmp_path, small_corpus)
    Disk(monkeypatch, {7: 10**9})
    summary = commands.train.run(made).summary
    corpus = Corpus.open(small_corpus, "train")
    replaced = [entry for row in lines(tmp_path / "train", "replaced") for entry in row["replaced"]]
    assert len(replaced) == sum(stage["replaced"] for stage in summary["stages"]) >= 1
    assert {entry["utterance"] for entry in replaced} == {corpus.utterance(7).id}
    apart = np.abs(corpus.numbers("seconds") - corpus.utterance(7).seconds)
    nearest = min(apart[row] for row in range(len(corpus)) if row != 7)
    by = {corpus.utterance(row).id: row for row in range(len(corpus))}[replaced[0]["by"]]
    assert apart[by] == nearest
    assert "Input/output error" in replaced[0]["why"]


def taken_away(monkeypatch: pytest.MonkeyPatch, evaluation: int) -> list[Validation]:
    """Sends SIGTERM when evaluation number `evaluation` begins, counted from 1; returns the evaluations."""
    real, begun = Validation.__call__, []

    def measure(self: Validation, loaded: LoadedModel, should_stop: Callable[[], bool]) -> dict[str, float] | None:
        begun.append(self)
        if len(begun) == evaluation:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(self, loaded, should_stop)

    monkeypatch.setattr(Validation, "__call__", measure)
    return begun


def test_replaced_utterances_are_counted_over_sessions(
    small_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Disk(monkeypatch, dict.fromkeys(range(0, 48, 2), 10**9))
    taken_away(monkeypatch, 3)
    made = run_recipe(tmp_path, small_corpus)
    with pytest.raises(Interrupted):
        commands.train.run(made)
    summary = commands.train.run(made).summary
    logged = [row for row in lines(tmp_path / "train", "replaced") if row["stage"] == "all"]
    assert summary["stages"][1]["replaced"] == sum(len(row["replaced"]) for row in logged) > 3


def test_a_corpus_that_cannot_be_read_at_all_ends_the_run(
    small_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Disk(monkeypatch, dict.fromkeys(range(48), 10**9))
    with pytest.raises(CaspiError, match=r"cannot be read \(OSError: .*is its disk available"):
        commands.train.run(short(tmp_path, small_corpus))


def test_on_a_full_disk_a_checkpoint_is_lost_but_the_run_continues(
    small_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real, calls = checkpoints.check_readable, []

    def check(folder: Path) -> None:
        calls.append(folder)
        if len(calls) == 3:
            raise OSError(28, "No space left on device")
        real(folder)

    monkeypatch.setattr(checkpoints, "check_readable", check)
    commands.train.run(run_recipe(tmp_path, small_corpus))
    assert (
        "checkpoint-2 could not be written ([Errno 28] No space left on device); the run continues"
        in capsys.readouterr().err
    )
    steps = [checkpoints.step_of(path) for path in checkpoints.complete_checkpoints(tmp_path / "train" / "2-all")]
    assert steps == [4, 6]
    assert not (tmp_path / "train" / "2-all" / ".partial").exists()


def command_of(folder: Path, made: recipe.Recipe) -> list[str]:
    path = folder / "recipe.yaml"
    path.write_text(recipe.dump(made), encoding="utf-8")
    return [sys.executable, "-m", "caspi", "train", str(path)]


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("mount"), reason="needs root to mount a small disk")
@pytest.mark.slow
def test_a_small_mounted_disk_that_is_full(small_corpus: Path, small_run: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "none", str(disk)], check=False).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        command = command_of(tmp_path, run_recipe(disk, small_corpus))
        first = subprocess.run(command, capture_output=True, text=True, check=False)
        assert first.returncode == 1
        assert "the run continues, make space" in first.stderr
        assert "make space; the same command continues" in first.stderr.splitlines()[-1]
        assert any(checkpoints.complete_checkpoints(folder) for folder in (disk / "train").glob("*-*"))
        subprocess.run(["mount", "-o", "remount,size=400m", str(disk)], check=True)
        subprocess.run(command, capture_output=True, check=True)
        undisturbed, found = final_weights(small_run), final_weights(disk / "train")
        assert all(torch.equal(undisturbed[name], found[name]) for name in undisturbed)
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)  # lazily: tensors may still be mapped


def in_the_last_stage(folder: Path, corpus: Path) -> tuple[list[str], subprocess.Popen[bytes]]:
    """The command of a run, and its process, once it has begun its last stage."""
    command = command_of(folder, run_recipe(folder, corpus, "train.workers=1"))
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True)
    log = folder / "train" / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not (log.is_file() and '"stage": "all"' in log.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return command, process


@pytest.mark.slow
def test_a_preempted_run_resumes_to_identical_weights(small_corpus: Path, small_run: Path, tmp_path: Path) -> None:
    """SIGTERM to every process, the loader's too: the run saves and ends, and the final weights are the same."""
    command, process = in_the_last_stage(tmp_path, small_corpus)
    os.killpg(process.pid, signal.SIGTERM)
    stderr = process.communicate(timeout=300)[1].decode()
    assert process.returncode == 75
    assert "was asked to end after step" in stderr.splitlines()[-1]
    assert checkpoints.complete_checkpoints(tmp_path / "train" / "2-all")
    subprocess.run(command, check=True, capture_output=True)
    undisturbed, resumed = final_weights(small_run), final_weights(tmp_path / "train")
    assert all(torch.equal(undisturbed[name], resumed[name]) for name in undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["early", "saving", "between stages"])
def test_a_run_killed_at_any_moment_resumes_bit_identically(
    small_corpus: Path, small_run: Path, tmp_path: Path, moment: str
) -> None:
    """SIGKILL, then the same command again: the weights of an undisturbed run, with augmentation."""
    run = tmp_path / "train"
    reached = {
        "early": (run / "metrics.jsonl").is_file,
        "saving": lambda: any((run / "2-all" / ".partial").glob("*/*")),
        "between stages": (run / "1-letters" / "stage.json").is_file,
    }[moment]
    command = command_of(tmp_path, run_recipe(tmp_path, small_corpus))
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 120
    while not reached():
        assert time.monotonic() < deadline
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.001)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (run / "report.json").exists()
    subprocess.run(command, check=True, capture_output=True)
    undisturbed, resumed = final_weights(small_run), final_weights(run)
    assert all(torch.equal(undisturbed[name], resumed[name]) for name in undisturbed)
    logged = [(row["stage"], row["step"]) for row in lines(run, "loss")]
    assert logged == sorted(set(logged), key=logged.index), "a step is logged once"


def test_utterances_of_a_shard_truncated_during_a_run_are_replaced(
    small_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is really truncated. Reading a memory-mapped page that is gone would kill the process silently."""
    corpus = tmp_path / "corpus"
    shutil.copytree(small_corpus, corpus)
    shard = corpus / "train-00000.arrow"
    real, read = Corpus.samples, []

    def samples(opened: Corpus, row: int) -> np.ndarray:
        read.append(row)
        if len(read) == 10:
            os.truncate(shard, shard.stat().st_size // 2)
        return real(opened, row)

    monkeypatch.setattr(Corpus, "samples", samples)
    monkeypatch.setattr(steps, "_RETRY_AFTER", (0.0, 0.0))
    commands.train.run(short(tmp_path, corpus))
    replaced = [entry for row in lines(tmp_path / "train", "replaced") for entry in row["replaced"]]
    assert replaced
    assert all("train-00000.arrow was cut short" in entry["why"] for entry in replaced)


@pytest.mark.parametrize("which", [2, -1])
def test_an_evaluation_stops_when_the_run_is_asked_to_end(
    small_corpus: Path, small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, which: int
) -> None:
    """Asked to end while it decodes, the run saves at once; a missing evaluation at a stage's end is done later."""
    which %= len(metrics(small_run, "eval_loss")) + 1
    evaluations = taken_away(monkeypatch, which)
    made = run_recipe(tmp_path, small_corpus)
    with pytest.raises(Interrupted, match="was asked to end after step"):
        commands.train.run(made)
    assert len(evaluations) == which, "no other evaluation began"
    summary = commands.train.run(made).summary
    undisturbed, resumed = final_weights(small_run), final_weights(tmp_path / "train")
    assert all(torch.equal(undisturbed[name], resumed[name]) for name in undisturbed)
    last = [stage["checkpoints"][-1] for stage in summary["stages"]]
    known = [stage["checkpoints"][-1] for stage in json.loads((small_run / "report.json").read_text())["stages"]]
    assert [(found["wer"], found["loss"]) for found in last] == [(found["wer"], found["loss"]) for found in known]


@pytest.mark.slow
@pytest.mark.parametrize("times", [1, 2])
def test_the_first_ctrl_c_saves_and_the_second_ends_at_once(
    small_corpus: Path, small_run: Path, tmp_path: Path, times: int
) -> None:
    command, process = in_the_last_stage(tmp_path, small_corpus)
    for _ in range(times):
        os.killpg(process.pid, signal.SIGINT)  # to all processes, as from a terminal
        time.sleep(0.02)
    stderr = process.communicate(timeout=300)[1].decode()
    if times == 2:
        assert process.returncode in (130, 75)  # 75 if it had saved before the second one
        return
    assert process.returncode == 75
    assert "received Ctrl-C: saving, then stopping; press Ctrl-C again" in stderr
    assert "the same command continues" in stderr.splitlines()[-1]
    subprocess.run(command, check=True, capture_output=True)
    undisturbed, resumed = final_weights(small_run), final_weights(tmp_path / "train")
    assert all(torch.equal(undisturbed[name], resumed[name]) for name in undisturbed)


@pytest.mark.parametrize(("key", "value"), [("save_every", "1"), ("save_every_minutes", "0.000001")])
def test_checkpoints_are_saved_as_often_as_configured(key: str, value: str, small_corpus: Path, tmp_path: Path) -> None:
    made = short(
        tmp_path, small_corpus, f"train.{key}={value}", "train.evaluate.every=100", "train.evaluate.keep=1",
        "train.stages.1.epochs=0.5",
    )  # fmt: skip
    seen: list[str] = []
    real = checkpoints.make_visible
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints, "make_visible", lambda s, final, m: seen.append(final.name) or real(s, final, m))
        commands.train.run(made)
    assert seen[:2] == ["checkpoint-1", "checkpoint-2"]
    assert (
        len(checkpoints.complete_checkpoints(tmp_path / "train" / "2-all")) == 1
    )  # the last one, which is also the best


def test_diverged_weights_are_reported_and_the_log_stays_json(
    small_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forward(real: Forward, objective: CrossEntropy, batch: Batch) -> torch.Tensor:
        with torch.no_grad():
            next(p for p in objective.parameters() if p.requires_grad).fill_(float("nan"))
        return real(objective, batch)

    spoil(monkeypatch, forward)
    with pytest.raises(
        CaspiError, match="the weights have been non-finite since step 0: training diverged; start another run"
    ):
        commands.train.run(short(tmp_path, small_corpus))
    for line in (tmp_path / "train" / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=pytest.fail)


def test_an_epoch_of_one_step_and_too_few_epochs_give_a_warning(
    small_corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    commands.train.run(short(tmp_path, small_corpus, "train.effective_batch=5000", "train.stages.0.epochs=0.001"))
    stderr = capsys.readouterr().err
    assert "stage letters: an epoch is a single step: its batch contains all" in stderr
    assert "stage letters: 0.001 epochs of 1 steps round to 0 steps; one step is run" in stderr
