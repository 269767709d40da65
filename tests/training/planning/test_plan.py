"""Plans: without a corpus, for several machines, with everything that a stage takes beside its steps."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from caspi import commands, recipe
from caspi.commands.demo import recipe_file
from caspi.commands.plan import machine, options
from caspi.corpus.store import Corpus
from caspi.errors import UsageError
from caspi.model.loading import LoadedModel
from caspi.training.planning.assumed import AssumedCorpus, assumed_set
from caspi.training.planning.estimates import gpus
from caspi.training.planning.plan import Machine, PlanOptions, plan_run
from caspi.training.planning.spot import spot_costs
from tests.support import run_recipe

H100 = gpus()["h100"]


@given(st.floats(1, 25), st.floats(0.5, 20))
def test_assumed_clips_have_the_hours_and_the_mean_that_were_given(
    tiny: LoadedModel, mean: float, hours: float
) -> None:
    train = (
        recipe.load(recipe_file("round2.yaml")).require_train().model_copy(update={"mixes": {}, "max_seconds": 30.0})
    )
    data = assumed_set(AssumedCorpus({"": hours}, mean), tiny.prompt, train, 0)
    assert data.seconds.max() <= 30
    assert data.seconds.mean() == pytest.approx(mean, rel=0.01)
    assert data.seconds.sum() / 3600 == pytest.approx(hours, rel=0.02, abs=mean / 3600)
    assert data.target_tokens.mean() / mean > 4.4
    assert (data.plain.sequence_tokens > data.plain.audio_tokens + data.target_tokens).all()


def test_an_assumed_corpus_costs_what_a_real_one_of_the_same_lengths_does(small_corpus: Path, tmp_path: Path) -> None:
    made = run_recipe(tmp_path, small_corpus, "train.mixes={}", "train.stages.0.epochs=30")
    train = made.require_train().model_copy(update={"stages": made.require_train().stages[:1]})
    seconds = Corpus.open(small_corpus, "train").numbers("seconds")
    assumed = AssumedCorpus({"": float(seconds.sum()) / 3600}, float(seconds.mean()))
    on = (Machine("h100", 1),)
    [real] = plan_run(made.model, train, small_corpus, 0, PlanOptions(on))
    [without] = plan_run(made.model, train, tmp_path / "none", 0, PlanOptions(on, assumed=assumed))
    assert without.assumed
    assert not real.assumed
    assert without.hours == pytest.approx(real.hours, rel=0.15)
    assert without.targets == []


def test_the_evaluations_and_checkpoints_of_a_plan_are_those_of_training(
    small_corpus: Path, small_run: Path, small_recipe: object, tmp_path: Path
) -> None:
    run = json.loads((small_run / "run.json").read_text())
    lines = [json.loads(line) for line in (small_run / "metrics.jsonl").read_text().splitlines()]
    made = run_recipe(tmp_path, small_corpus)
    [planned] = plan_run(made.model, made.require_train(), small_corpus, made.seed, PlanOptions((Machine("h100"),)))
    assert run["train"]["evaluate"] == made.require_train().evaluate.model_dump(mode="json")
    for stage in planned.stages:
        evaluated = [line for line in lines if line["stage"] == stage.batches.name and "eval_loss" in line]
        assert stage.costs.beside is not None
        assert stage.costs.beside.evaluations == len(evaluated)
        assert stage.costs.beside.checkpoints == len(evaluated), "every evaluation saves one"


def test_several_machines_are_put_beside_each_other(small_corpus: Path, tmp_path: Path) -> None:
    made = run_recipe(tmp_path, small_corpus)
    machines = (Machine("h100", 1), Machine("a100-40gb", 2), Machine("l4", 1))
    outcome = commands.plan.run(made, PlanOptions(machines))
    rows = outcome.summary["machines"]
    assert [(row["gpu"], row["gpus"]) for row in rows] == [("h100", 1), ("a100-40gb", 2), ("l4", 1)]
    assert all(row["cost"] == pytest.approx(row["hours"] * gpus()[row["gpu"]].price * row["gpus"]) for row in rows)
    assert all(row["spot"]["hours"] > row["hours"] for row in rows)
    assert outcome.summary["prices"] == "2026-11"
    page = outcome.path.read_text("utf-8")
    assert "2 x a100-40gb" in page
    assert "orders of magnitude" in page


def test_hours_are_the_sum_of_their_parts(small_corpus: Path, tmp_path: Path) -> None:
    made = run_recipe(tmp_path, small_corpus)
    [planned] = plan_run(made.model, made.require_train(), small_corpus, 0, PlanOptions((Machine("h100"),)))
    [more] = plan_run(
        made.model,
        made.require_train().model_copy(update={"save_every": 1}),
        small_corpus,
        0,
        PlanOptions((Machine("h100"),)),
    )
    first, saving = planned.stages[0].costs, more.stages[0].costs
    assert first.beside is not None
    assert saving.beside is not None
    assert saving.beside.checkpoints > first.beside.checkpoints
    added = saving.beside.saving - first.beside.saving
    assert 3600 * (saving.hours or 0) == pytest.approx(3600 * (first.hours or 0) + added)


def test_hypotheses_of_the_sequence_objective_are_decoded(small_corpus: Path, tmp_path: Path) -> None:
    plain = run_recipe(tmp_path, small_corpus)
    sampled = run_recipe(tmp_path, small_corpus, "train.stages.0.objective={kind: sequence, hypotheses: 8}")
    [one], [other] = (
        plan_run(made.model, made.require_train(), small_corpus, 0, PlanOptions((Machine("h100"),)))
        for made in (plain, sampled)
    )
    assert one.stages[0].costs.beside is not None
    assert one.stages[0].costs.beside.decoding == 0
    assert other.stages[0].costs.beside is not None
    assert other.stages[0].costs.beside.decoding > 0


def test_sharded_weights_take_more_time(small_corpus: Path, tmp_path: Path) -> None:
    made = run_recipe(tmp_path, small_corpus, "model={start: tiny}")
    pair = (Machine("h100", 2),)
    [whole] = plan_run(made.model, made.require_train(), small_corpus, 0, PlanOptions(pair))
    [shared] = plan_run(made.model, made.require_train(), small_corpus, 0, PlanOptions(pair, sharded=True))
    assert (shared.hours or 0) > (whole.hours or 0)


@given(st.floats(60, 1e6), st.floats(60, 1e5), st.floats(0, 1))
def test_spot_machines_take_longer_by_what_interruptions_cost(seconds: float, between: float, rate: float) -> None:
    costs = spot_costs(replace(H100, spot=1.0, interruptions=rate), 2, seconds, between)
    if costs is None:  # nothing would ever be finished
        assert rate * (600 + min(between, seconds) / 2) >= 3600
        return
    lost = costs.interruptions * (600 + min(between, seconds) / 2)
    assert 3600 * costs.hours == pytest.approx(seconds + lost)
    assert costs.cost == pytest.approx(2 * costs.hours)
    assert spot_costs(replace(H100, spot=None), 1, seconds, between) is None


def test_how_machines_and_hours_are_given() -> None:
    assert machine("8xh100", 1) == machine("8 x h100", 1) == Machine("h100", 8)
    assert machine("a100-40gb", 2) == Machine("a100-40gb", 2)
    made = options(["h100", "2xh200"], 4, ["crowd=3", "knesset=4700.5"], 7.0, False, None, False)
    assert made.machines == (Machine("h100", 4), Machine("h200", 2))
    assert made.assumed == AssumedCorpus({"crowd": 3.0, "knesset": 4700.5}, 7.0)
    for wrong in ("x", "-3", "0", "=3", "a=b", "nan"):
        with pytest.raises(UsageError, match="give hours"):
            options([], 1, [wrong], 8.0, False, None, False)
    with pytest.raises(UsageError, match="at least one GPU"):
        machine("0xh100", 1)


def test_a_mix_needs_the_hours_of_its_sources(tiny: LoadedModel) -> None:
    train = recipe.load(recipe_file("round3.yaml")).require_train()
    with pytest.raises(UsageError, match="--hours knesset=100"):
        assumed_set(AssumedCorpus({"": 3.0}), tiny.prompt, train, 0)
    names = {source: 1.0 for mix in train.mixes.values() for source in mix.sources}
    data = assumed_set(AssumedCorpus(names), tiny.prompt, train, 0)
    assert set(data.sources) == set(names)
    assert np.isfinite(data.seconds).all()
    with pytest.raises(UsageError, match="--mean-seconds 400"):
        assumed_set(AssumedCorpus(names, 400.0), tiny.prompt, train, 0)
