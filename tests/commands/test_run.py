"""caspi run: the whole chain, what it skips, where it stops, and how it resumes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from caspi import commands, recipe
from caspi.commands.chain import STEPS, Chain, read_steps
from caspi.commands.outcome import Outcome
from caspi.commands.run import RunOptions
from caspi.commands.run_page import parent_of
from caspi.commands.train import LivePage
from caspi.errors import UsageError
from tests.conftest import RECIPES, small_overrides

WITHOUT_AUDIT = RunOptions(audit=False)


def names(outcome: Outcome) -> list[str]:
    return [step["name"] for step in outcome.summary["steps"]]


def test_the_whole_chain_once_and_again(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    made = recipe.load(RECIPES / "demo.yaml", small_overrides(tmp_path / "mine"))
    outcome = commands.run.run(made, "demo.yaml", WITHOUT_AUDIT)
    wanted = ["prepare", "plan", "train", "average", "evaluate-start", "evaluate", "export"]
    assert names(outcome) == wanted
    assert outcome.exit_code == 0
    assert outcome.line.startswith("WER ")
    folder = tmp_path / "mine"
    assert (folder / "export" / "model.safetensors").is_file()
    assert "## Evaluated" in (folder / "export" / "README.md").read_text(encoding="utf-8")
    assert Path(outcome.summary["best"]).resolve().is_dir()
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "WER before" in page
    assert "WER after" in page
    assert "caspi train demo.yaml" in page

    capfd.readouterr()
    again = commands.run.run(made, "demo.yaml", WITHOUT_AUDIT)
    assert capfd.readouterr().err.count("(done before)") == len(wanted) - 1  # prepare looks at its sources itself
    assert names(again) == wanted

    from_evaluation = commands.run.run(made, "demo.yaml", RunOptions(audit=False, first="export"))
    assert capfd.readouterr().err.count("(done before)") == len(wanted) - 2
    assert names(from_evaluation) == wanted
    told = commands.run.status(folder)
    assert told.line == "not running; last: export"
    assert any("train: validation: WER" in str(line) for line in told.tables)

    better = recipe.load(
        RECIPES / "demo.yaml",
        (*small_overrides(tmp_path / "second"), f"corpus.path={folder / 'corpus'}", "train.stages.1.epochs=2"),
    )
    compared = commands.run.run(better, "demo.yaml", RunOptions(audit=False, last="compare"))
    assert names(compared)[-1] == "compare", "the newest run of the same name is its parent"
    assert compared.summary["parent"] == str(folder.resolve())
    page = (tmp_path / "second" / "report.html").read_text("utf-8")
    for words in ("Beside the run before", "WER of mine", "train.stages.1.epochs", "Validation WER of both"):
        assert words in page
    assert "corpus.path</td>" not in page

    again = commands.run.run(made, "demo.yaml", WITHOUT_AUDIT)
    assert again.summary["parent"] is None, "the second run came later"

    from_it = recipe.load(
        RECIPES / "demo.yaml", (*small_overrides(tmp_path / "third"), f"model.start={folder / 'train' / 'best'}")
    )
    assert parent_of(from_it, tmp_path / "third", None) == folder.resolve(), "it starts from that one's model"
    assert parent_of(from_it, tmp_path / "third", tmp_path / "second") == tmp_path / "second"


def test_it_stops_before_training_that_costs_too_much_or_is_of_unknown_cost(tmp_path: Path) -> None:
    made = recipe.load(RECIPES / "demo.yaml", small_overrides(tmp_path / "mine"))
    outcome = commands.run.run(made, "demo.yaml", RunOptions(audit=False, budget=1.0))
    assert outcome.exit_code == 3
    assert "--budget 1: what training costs on this machine is not known" in outcome.line
    assert names(outcome) == ["prepare", "plan"]
    assert not (tmp_path / "mine" / "train").exists()


def test_it_stops_where_the_audit_says_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = recipe.load(RECIPES / "demo.yaml", small_overrides(tmp_path / "mine"))

    def audited(corpus: Path, aligner: str, *rest: object) -> Outcome:
        return Outcome(
            "STOP: 40 % of the transcripts are faulty", corpus.with_name("corpus-audit") / "report.html", {}, 3
        )

    monkeypatch.setattr(commands.audit, "run", audited)
    outcome = commands.run.run(made, "demo.yaml", RunOptions())
    assert outcome.exit_code == 3
    assert names(outcome) == ["prepare", "audit"]
    assert "caspi repair" in outcome.line
    assert "--no-audit" in outcome.line


def test_what_it_refuses(tmp_path: Path) -> None:
    made = recipe.load(RECIPES / "demo.yaml", small_overrides(tmp_path / "mine"))
    for options, message in (
        (RunOptions(first="training"), "--from training: not one of prepare, audit"),
        (RunOptions(last="x"), "--until x"),
        (RunOptions(parent=tmp_path), "there is no run"),
    ):
        with pytest.raises(UsageError, match=message):
            commands.run.run(made, "demo.yaml", options)
    aligner = recipe.load(RECIPES / "aligner-tiny.yaml")
    with pytest.raises(UsageError, match="trains an aligner"):
        commands.run.run(aligner, "aligner-tiny.yaml", RunOptions())
    with pytest.raises(UsageError, match="is no run"):
        commands.run.status(tmp_path)
    Chain(tmp_path / "mine", "another").run("prepare", "x", 0, lambda: Outcome("done", tmp_path))
    with pytest.raises(UsageError, match="holds the run 'another', not 'demo'"):
        commands.run.run(made, "demo.yaml", RunOptions())


def test_a_change_runs_everything_after_it_again(tmp_path: Path) -> None:
    done: list[str] = []

    def step(name: str) -> Outcome:
        done.append(name)
        return Outcome(f"{name} done", tmp_path)

    def chain(middle: int) -> None:
        steps = Chain(tmp_path, "mine")
        for name, inputs in (("one", 1), ("two", middle), ("three", 3)):
            steps.run(name, name, inputs, lambda name=name: step(name))  # type: ignore[misc]

    chain(2)
    chain(2)
    assert done == ["one", "two", "three"]
    chain(5)
    assert done[3:] == ["two", "three"]
    assert [one.name for one in read_steps(tmp_path)] == ["one", "two", "three"]


KILLED = """
import os, signal, sys
from pathlib import Path
from caspi.commands.chain import Chain
Chain(Path(sys.argv[1]), "mine").run("one", "one", 1, lambda: os.kill(os.getpid(), signal.SIGKILL))
"""


def test_a_step_that_fails_is_not_done(tmp_path: Path) -> None:
    def failing() -> Outcome:
        raise UsageError("no")

    with pytest.raises(UsageError):
        Chain(tmp_path, "mine").run("one", "one", 1, failing)
    assert json.loads((tmp_path / STEPS).read_text())["running"] is None
    assert commands.run.status(tmp_path).line == "failed in one: no"
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert commands.run.status(tmp_path).line == "stopped in: one; the same command resumes"
    step = Chain(tmp_path, "mine").run("one", "one", 1, lambda: Outcome("done", tmp_path))
    assert step.result == "done"
    (tmp_path / STEPS).write_text("{")
    with pytest.raises(UsageError, match="damaged: remove it"):
        Chain(tmp_path, "mine")


@pytest.mark.slow
def test_asked_to_end_it_saves_and_the_same_command_resumes(tmp_path: Path) -> None:
    """With the exit code that schedulers know, and the same weights as a run that was left alone."""
    weights = []
    for name in ("alone", "ended"):
        folder = tmp_path / name
        overrides = [*small_overrides(folder), "train.stages.1.epochs=8"]
        command = [sys.executable, "-m", "caspi", "run", str(RECIPES / "demo.yaml"), *overrides, "--no-audit"]
        if name == "ended":
            process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
            assert process.stderr is not None
            for line in process.stderr:
                if "train all: step 10/" in line:
                    process.send_signal(signal.SIGTERM)
                    break
            rest = process.stderr.read()
            assert process.wait(60) == 75
            assert "caspi run" in rest
            assert "resumes" in rest
            told = subprocess.run(
                [sys.executable, "-m", "caspi", "status", str(folder)], check=True, capture_output=True, text=True
            ).stderr
            assert "failed in train: " in told
            assert "was asked to end" in told
        subprocess.run(command, check=True, capture_output=True)
        [last] = (folder / "train" / "2-all").glob("checkpoint-48")
        weights.append((last / "model.safetensors").read_bytes())
    assert weights[0] == weights[1]


@pytest.mark.slow
def test_training_in_several_processes_ends_as_they_end(tmp_path: Path) -> None:
    """As on a machine with several GPUs, here on its cores."""
    made = recipe.load(RECIPES / "demo.yaml", small_overrides(tmp_path / "mine"))
    commands.prepare.run(made)
    path = tmp_path / "resolved.yaml"
    path.write_text(recipe.dump(made), encoding="utf-8")
    program = "import sys; from caspi.training.distributed.launch import launch; sys.exit(launch(sys.argv[1:], 2))"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", program, "train", str(path)]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if "train all: step 2/" in line:
            process.send_signal(signal.SIGTERM)
            break
    process.stderr.read()
    assert process.wait(120) == 75
    assert subprocess.run(command, env=environment, check=False, capture_output=True).returncode == 0
    began = time.monotonic()
    failed = subprocess.run(
        [*command[:3], "train", str(tmp_path / "none.yaml")], env=environment, check=False, capture_output=True
    )
    assert failed.returncode == 2
    assert time.monotonic() - began < 60


def test_the_page_of_training_exists_while_it_trains(small_corpus: Path, tmp_path: Path) -> None:
    made = recipe.load(RECIPES / "demo.yaml", (*small_overrides(tmp_path / "mine"), f"corpus.path={small_corpus}"))
    train = made.require_train()
    live = LivePage(made)
    train.path.mkdir(parents=True)
    metrics = [
        {
            "stage": "letters",
            "step": 1,
            "steps": 3,
            "loss": 8.5,
            "audio_seconds_per_second": 90.0,
            "seconds_left": 60.0,
        },
        {"stage": "letters", "step": 3, "steps": 3, "eval_loss": 7.5, "eval_wer": 0.98, "eval_cer": 0.9},
        {"stage": "all", "step": 2, "steps": 6, "loss": 5.5, "audio_seconds_per_second": 80.0, "seconds_left": 150.0},
    ]
    (train.path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in metrics))
    live()
    page = (train.path / "report.html").read_text("utf-8")
    for words in (
        "running: stage all, step 2",
        "all (2 of 2)",
        "80 s of audio per second",
        "2.5 min",
        "98.0 %",
        "refresh",
    ):
        assert words in page
    (train.path / "metrics.jsonl").write_text("{")
    live()
    assert (train.path / "report.html").read_text("utf-8") == page, "not again so soon"
    Chain(tmp_path / "mine", "demo")._write("train")  # by this process, which runs
    (train.path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in metrics) + '{"half')
    told = commands.run.status(tmp_path / "mine").line
    assert told == (
        "running: train, stage all, step 2 of 6, 80 s of audio per second, 2.5 min left in the stage, validation WER "
        "98.0 % at step 3"
    )
