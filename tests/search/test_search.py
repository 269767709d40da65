"""caspi search: its space, its study on disk, and whole searches with real training runs."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from caspi import commands, recipe
from caspi.commands.search import BEST
from caspi.errors import CaspiError, UsageError
from caspi.search.halving import Reached
from caspi.search.space import Parameter, Space, overrides
from caspi.search.study import Study
from tests.conftest import RECIPES, small_overrides

SPACE = """
parameters:
  train.stages.1.groups.decoder_layers: {low: 1e-4, high: 1e-2, log: true}
  train.effective_batch: {choices: [4, 8]}
"""


def space(tmp_path: Path, text: str = SPACE) -> Path:
    path = tmp_path / "space.yaml"
    path.write_text(text)
    return path


def small(tmp_path: Path, *others: str) -> recipe.Recipe:
    return recipe.load(RECIPES / "demo.yaml", (*small_overrides(tmp_path / "mine"), *others))


def reached(wer: float) -> Reached:
    return Reached((round(100 * wer),), (100,), (0,), wer)


def test_the_space_that_comes_with_caspi_holds_the_demos_own_values() -> None:
    loaded = recipe.load_as(Space, RECIPES / "search" / "demo.yaml", "space")
    own = loaded.own(recipe.load(RECIPES / "demo.yaml").model_dump(mode="json"))
    assert own is not None
    assert own["train.stages.1.groups.decoder_layers"] == 2e-3
    assert own["train.effective_batch"] == 32


def test_values_outside_of_the_space_are_not_its_own() -> None:
    made = Space(parameters={"train.stages.1.groups.decoder_layers": Parameter(low=1e-5, high=1e-4, log=True)})
    assert made.own(recipe.load(RECIPES / "demo.yaml").model_dump(mode="json")) is None
    missing = Space(parameters={"train.nothing": Parameter(low=0, high=1)})
    assert missing.own({}) is None


def test_values_become_overrides(tmp_path: Path) -> None:
    changed = recipe.load(
        RECIPES / "demo.yaml",
        overrides({"train.effective_batch": 16, "train.stages.1.groups.decoder_layers": 1.5e-5, "train.compile": False,
                   "train.stages.1.optimizer": "muon"}),
    )  # fmt: skip
    train = changed.require_train()
    assert train.effective_batch == 16
    assert train.stages[1].groups["decoder_layers"].lr == 1.5e-5
    assert train.compile is False
    assert train.stages[1].optimizer == "muon"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("parameters: {}", "parameters: "),
        ("parameters: {train.effective_batch: {low: 3}}", "give low and high, or choices"),
        ("parameters: {train.effective_batch: {low: 3, high: 2}}", "low must be below high"),
        ("parameters: {train.effective_batch: {low: 0, high: 2, log: true}}", "low must be above 0"),
        ("parameters: {train.effective_batch: {choices: [1, 2], log: true}}", "log and integer are for a range"),
        ("parameters: {train.effective_batch: {lo: 3}}", "did you mean low"),
        ("parameters: {train.efective_batch: {choices: [1, 2]}}", "did you mean effective_batch"),
        ("parameters: {train.effective_batch: {low: 0.5, high: 8}}", "train.effective_batch=0.5: "),
        ("parameters: {corpus.seed: {choices: [1, 2]}}", "corpus.seed: only keys of train and model"),
    ],
)
def test_what_a_space_may_not_say(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        commands.search.run(small(tmp_path), space(tmp_path, text), 1, 1, None)


def test_a_folder_is_of_one_search(tmp_path: Path) -> None:
    made, out = small(tmp_path), tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("not of a search")
    with pytest.raises(UsageError, match="no caspi search made it"):
        commands.search.run(made, space(tmp_path), 1, 1, out)
    (out / "mine.txt").unlink()
    wrong = space(tmp_path, "parameters: {train.effective_batch: {low: 0.5, high: 8}}")
    with pytest.raises(UsageError):
        commands.search.run(made, wrong, 1, 1, out)
    assert not any(out.iterdir()), "a space that was refused claims no folder"
    (out / "search.json").write_text("{}")
    with pytest.raises(UsageError, match="a search of another recipe or space"):
        commands.search.run(made, space(tmp_path), 1, 1, out)


def test_workers_share_the_runs(tmp_path: Path) -> None:
    loaded = recipe.load_as(Space, space(tmp_path), "space")
    one, other = (Study(tmp_path / "out", loaded, 0) for _ in range(2))
    one.begin_with({"train.stages.1.groups.decoder_layers": 1e-3, "train.effective_batch": 8})
    with contextlib.ExitStack() as held:
        first, second = held.enter_context(one.next(3)), held.enter_context(other.next(3))
        assert first is not None
        assert second is not None
        assert one.values(first) == {"train.stages.1.groups.decoder_layers": 1e-3, "train.effective_batch": 8}
        assert other.values(second)["train.effective_batch"] in (4, 8)
        assert one.folder_of(first) != other.folder_of(second)
        with one.next(3) as third:
            assert third is not None
            one.values(third)
            with other.next(3) as fourth:
                assert fourth is None, "three are running"
        assert other.reclaim() == 1, "what nobody holds was left"
        with other.next(3) as again:
            assert again is not None
            assert other.folder_of(again) == one.folder_of(third)
            one.finish(first, reached(0.2))
            other.finish(again, reached(0.1))
    assert [trial.number for trial in one.ranked()] == [again.number, first.number]


def test_a_search_whose_first_runs_all_fail_ends(tmp_path: Path) -> None:
    study = Study(tmp_path / "out", recipe.load_as(Space, space(tmp_path), "space"), 0)
    for _ in range(3):
        study.require_success()
        with study.next(9) as trial:
            assert trial is not None
            study.values(trial)
            study.fail(trial, "out of memory")
    with pytest.raises(CaspiError, match="the first 3 runs failed: out of memory"):
        study.require_success()


@pytest.mark.slow
def test_a_search_that_is_killed_and_asked_to_end_goes_on(tmp_path: Path) -> None:
    """With real training runs. The first worker is killed, the second asked to end; a run goes on with what it had."""
    recipe_file = tmp_path / "mine.yaml"
    recipe_file.write_text(recipe.dump(small(tmp_path, "train.stages.1.epochs=4")))
    command = [
        sys.executable, "-m", "caspi", "search", str(recipe_file), "--space", str(space(tmp_path)), "--trials", "3",
        "--out", str(tmp_path / "out"),
    ]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1"}

    def ended_at(wanted: str, how: signal.Signals) -> int:
        process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        metrics = tmp_path / "out" / wanted / "train" / "metrics.jsonl"
        while process.poll() is None and not (metrics.exists() and '"utterances"' in metrics.read_text()):
            signal.sigtimedwait([], 0.1)
        process.send_signal(how)
        process.stderr.read()
        return process.wait(60)

    assert ended_at("run-000", signal.SIGTERM) == 75
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "going on with 1 run" in done.stderr
    found = json.loads((tmp_path / "out" / "report.json").read_text())
    assert sum(run["state"] in ("complete", "pruned") for run in found["runs"]) == 3
    log = (tmp_path / "out" / "run-000" / "log.txt").read_text()
    assert log.count("stage all: decoder_layers") == 2, "the first run went on in its folder"
    with_weights = {path.parts[-4] for path in (tmp_path / "out").glob("run-*/train/*/checkpoint-*")}
    assert len(with_weights) == 1, "the weights of the best"
    best = recipe.load(tmp_path / "out" / BEST)
    assert best.require_train().path == tmp_path / "mine" / "train"
    assert best.require_train().evaluate.every == 2
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    for part in ("The best values", "Values of the runs", "The best so far", "Runs"):
        assert part in page
    again = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "run-00" not in again.stderr, "nothing is left to do"
    shutil.rmtree(tmp_path / "out")
