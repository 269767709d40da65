"""Predicted memory and time, compared with measurements."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from caspi import commands, recipe
from caspi.corpus.store import Corpus
from caspi.errors import UsageError
from caspi.model.config import GroupTraining, ModelConfig
from caspi.model.groups import select
from caspi.model.loading import LoadedModel
from caspi.training.config import TrainConfig
from caspi.training.data.dataset import TrainingSet
from caspi.training.data.epoch_lengths import EpochLengths
from caspi.training.planning import pilot, preflight, shapes, stage_batches
from caspi.training.planning.costs import MicroBatchLoads, ModelShape, TrainableShape, block_passes, flops, peak_memory
from caspi.training.planning.estimates import changes_that_fit, estimate, gpus, recognised, running, seconds_each
from caspi.training.planning.pilot import fit
from caspi.training.planning.plan import PlanOptions
from tests.support import run_recipe

RESULTS = Path(__file__).parents[3] / "benchmarks" / "results"
PLAIN = json.loads((RESULTS / "step_memory-h100.json").read_text())["rows"]
COMPILED = json.loads((RESULTS / "step_memory-h200-compiled.json").read_text())["rows"]
ROWS = PLAIN + COMPILED
OPTIMIZERS = [
    row | {"compiled": True} for row in json.loads((RESULTS / "step_memory-h200-optimizers.json").read_text())["rows"]
]


def named(row: dict) -> str:  # type: ignore[type-arg]
    suffix = "-compiled" if row.get("compiled") else ""
    return f"{row['stage']}-{row['activation_checkpointing_every']}-{row['micro_batches']}-{row['seconds']}{suffix}"


RELEASED = ModelConfig(start="Qwen/Qwen3-ASR-1.7B-hf", init="random", scale="1.7b")


def loads(row: dict, share: float = 1.0) -> MicroBatchLoads:  # type: ignore[type-arg]
    def one(key: str) -> np.ndarray:
        return np.array([row[key] * share])

    return MicroBatchLoads(
        one("audio_seconds"), one("tokens"), one("audio_tokens"), one("labels"), np.array([0]), np.array([0]),
        np.array([row["micro_batches"] == 1]),
    )  # fmt: skip


def learning(row: dict) -> tuple[ModelShape, TrainableShape]:  # type: ignore[type-arg]
    model = shapes.on_meta_device(RELEASED)
    shape = ModelShape.of(model, model.config)
    groups = select(model, {name: GroupTraining.model_validate(config) for name, config in row["groups"].items()})
    return shape, TrainableShape.of(
        model, shape, groups, activation_checkpointing_every=row["activation_checkpointing_every"],
        compiled=row.get("compiled", False), optimizer=row.get("optimizer", "adamw"),
    )  # fmt: skip


@pytest.mark.parametrize("row", ROWS, ids=named)
def test_memory_is_predicted_within_a_tenth(row: dict) -> None:  # type: ignore[type-arg]
    shape, learns = learning(row)
    assert learns.parameters == row["trained"]
    assert peak_memory(shape, learns, loads(row))[0] == pytest.approx(row["peak_gib"], rel=0.1)


@pytest.mark.parametrize("row", ROWS, ids=named)
def test_time_is_predicted_within_a_third_and_launching_within_a_half(row: dict) -> None:  # type: ignore[type-arg]
    """Of one micro-batch, with the table's figures for the GPU that the row was measured on. A minute of audio is bound
    by the launch time of the host, and hosts differ: there within a half."""
    shape, learns = learning(row)
    within = 1 / 2 if row["seconds"] <= 60 else 1 / 3
    gpu = running(gpus()["h200" if row.get("compiled") else "h100"], learns)
    assert seconds_each(shape, learns, loads(row), gpu)[0] == pytest.approx(row["forward_backward_s"], rel=within)


@pytest.mark.parametrize("row", OPTIMIZERS, ids=lambda row: row["optimizer"])
def test_an_optimizers_time_and_memory_are_predicted(row: dict) -> None:  # type: ignore[type-arg]
    """Muon orthogonalises matrices, which takes ten times as long as AdamW's step, and keeps one moment of them."""
    shape, learns = learning(row)
    gpu, one = gpus()["h200"], loads(row)
    whole = (
        estimate(shape, learns, one, gpu, 1).seconds - estimate(shape, learns, one, gpu, 1, optimizer_seconds=0).seconds
    )
    assert whole == pytest.approx(row["optimizer_s"], rel=0.1)
    assert peak_memory(shape, learns, one)[0] == pytest.approx(row["peak_gib"], rel=0.1)


def test_the_parameters_are_those_of_the_released_model() -> None:
    model = shapes.on_meta_device(RELEASED)
    assert ModelShape.of(model, model.config).parameters == 2_038_052_480


def lengths(seed: int) -> TrainingSet:
    """Two thousand utterances of which only the lengths are known."""
    draw = np.random.default_rng(seed)
    seconds = np.clip(draw.lognormal(2.0, 0.5, 2000), 1, 15)
    target = np.ceil(seconds * draw.uniform(3, 6, 2000)).astype(np.int64)
    return TrainingSet(
        corpus=None, rows=np.arange(2000), ids=[], seconds=seconds, texts=[], languages=[], contexts=[], previous=[],
        sources=[], target_tokens=target, plain=EpochLengths.of(seconds, target + 30),
    )  # type: ignore[arg-type]  # fmt: skip


@settings(max_examples=25)
@given(st.sampled_from(ROWS), st.floats(8, 60), st.integers(0, 99))
def test_every_proposed_change_fits(row: dict, memory: float, seed: int) -> None:  # type: ignore[type-arg]
    """Plans again with the change, as a user who follows the advice."""
    shape, learns = learning(row)
    data = lengths(seed)

    def plan(**changes: int) -> tuple[TrainConfig, MicroBatchLoads]:
        stages = [{"name": "a", "groups": {"projector": 1e-3}}]
        config = TrainConfig.model_validate(
            {"path": "x", "max_seconds": 15, "effective_batch": 256, "stages": stages, "max_batch_seconds": 240}
            | changes
        )
        return config, stage_batches.planned(data, config, 4, seed)[0].loads

    config, loads = plan()
    for change in changes_that_fit(shape, learns, loads, config, memory, ranks=4):
        parts = [part.removeprefix("train.").split("=") for part in change.split() if "=" in part]
        values = {name: int(value) for name, value in parts}
        again = replace(
            learns,
            activation_checkpointing_every=values.pop(
                "activation_checkpointing_every", learns.activation_checkpointing_every
            ),
        )
        shards = 4 if "fsdp2" in change else 1
        assert peak_memory(shape, again, plan(**values)[1], shards).max() <= memory, change


def test_time_is_that_of_the_slowest_rank() -> None:
    shape, learns = learning(COMPILED[0])
    gpu = gpus()["h100"]
    one = loads(COMPILED[0])
    alone = estimate(shape, learns, one, gpu, 1, optimizer_seconds=0.0).seconds
    computing = gpu.overhead + flops(shape, learns, one)[0] / (gpu.rate * 1e12 * gpu.use)
    between = 0.05
    assert alone == pytest.approx(max(computing, gpu.launch * block_passes(shape, learns)) + between)
    two = MicroBatchLoads(*(np.repeat(getattr(one, name), 3) for name in MicroBatchLoads.__dataclass_fields__))
    two.rank[:] = [0, 1, 1]
    summing = 4 * learns.parameters / (gpu.link * 1e9)
    both = estimate(shape, learns, two, gpu, 2, optimizer_seconds=0.0).seconds
    assert both == pytest.approx(2 * alone - between + summing)


def test_a_pilot_finds_rate_and_overhead() -> None:
    work = np.array([1e12, 3e12, 9e12, 27e12])
    assert fit(work, 0.05 + work / 2e13) == pytest.approx((2e13, 0.05, 0.0), rel=1e-6)
    rate, overhead, floor = fit(work, np.maximum(0.3, 0.05 + work / 2e13))
    assert np.maximum(floor, overhead + work / rate) == pytest.approx(np.maximum(0.3, 0.05 + work / 2e13), rel=0.02)
    assert floor == pytest.approx(0.3)
    rate, overhead, floor = fit(work, np.full(4, 0.1))  # only launch time: the fit is still finite
    assert np.maximum(floor, overhead + work / rate) == pytest.approx(0.1)
    assert fit(np.array([1e12]), np.array([0.5])) == pytest.approx((2e12, 0.0, 0.0), rel=1e-9)


@given(st.lists(st.floats(-1e-13, 1e-13), min_size=4, max_size=4))
def test_rounding_does_not_change_the_fit_of_a_pilot(rounding: list[float]) -> None:
    """Processors differ in the last bits: for any of them, a line without a floor is fitted without one."""
    work = np.array([1e12, 3e12, 9e12, 27e12])
    found = fit(work, (0.05 + work / 2e13) * (1 + np.array(rounding)))
    assert found == pytest.approx((2e13, 0.05, 0.0), rel=1e-6)


def test_gpu_kinds_are_recognised_by_their_names() -> None:
    known = gpus()
    names = {
        "NVIDIA H100 80GB HBM3": "h100",
        "NVIDIA A100-SXM4-40GB": "a100-40gb",
        "NVIDIA H200": "h200",
        "NVIDIA L4": "l4",
    }
    for name, kind in names.items():
        assert recognised(name, known) == known[kind]
    assert recognised("cpu", known) is None


def test_a_users_own_table_is_used(tmp_path: Path) -> None:
    table = tmp_path / "gpus.yaml"
    known = "name: RTX, memory: 24, rate: 100, bandwidth: 1, link: 10, price: 0.2, use: 0.1, overhead: 0.1, launch: 0"
    table.write_text(f"mine: {{{known}}}")
    assert gpus(table)["mine"].memory == 24
    assert "h100" in gpus(table)
    for written, message in (
        ("mine: {memory: 24}", "mine: no name, rate, "),
        ("mine: [24]", "is not a table of GPU kinds"),
        (f"mine: {{{known}, memroy: 24}}", "mine: unknown: memroy"),
        (f"mine: {{{known.replace('24', '-5')}}}", "mine: memory must be more than 0"),
        (f"mine: {{{known.replace('100', 'fast')}}}", "could not convert string to float: 'fast'"),
    ):
        table.write_text(written)
        with pytest.raises(UsageError, match=message):
            gpus(table)


def test_a_stage_that_does_not_fit_is_refused_before_the_first_step(
    small_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (20 * 2**30, 24 * 2**30))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: 0)
    row = next(row for row in ROWS if row["stage"] == "round2-decoder" and row["seconds"] == 240)
    shape, learns = learning(row)
    config = run_recipe(tmp_path, small_corpus).require_train()
    with pytest.raises(
        UsageError,
        match=r"stage decoder needs about 29.* GiB, this GPU has 20.0 free of 24.0: what fits: "
        r"train.activation_checkpointing_every=1",
    ):
        preflight.require_memory("decoder", shape, learns, loads(row), config, 1)


def test_a_plan_counts_the_same_as_training(small_corpus: Path, tiny: LoadedModel, tmp_path: Path) -> None:
    made = run_recipe(tmp_path, small_corpus, "train.max_batch_seconds=5", "train.augment={}")
    config = made.require_train()
    data = TrainingSet.of(Corpus.open(small_corpus, "train"), tiny.prompt, config.max_seconds)
    for stage, plan in zip(config.stages, stage_batches.planned(data, config, 2, 0), strict=True):
        found = stage_batches.batch_counts(data, stage, plan, 2)
        assert plan.loads.seconds.sum() / 3600 == pytest.approx(found.audio_hours)
        assert plan.loads.seconds.max() == found.largest_micro_batch_seconds
        assert plan.loads.first.sum() == 2 * found.steps
        assert (plan.loads.tokens > plan.loads.audio_tokens + plan.loads.labels).all()
        assert "imbalance of ranks" in stage_batches.waste_line([found], 2)
        assert "ranks" not in stage_batches.waste_line([found], 1)


def test_a_plan_includes_speed_and_silence(small_corpus: Path, tiny: LoadedModel, tmp_path: Path) -> None:
    found = []
    for augment in ("{}", "{speed: [0.5], silence: {seconds: [0.25, 0.25], probability: 1}}"):
        config = run_recipe(tmp_path, small_corpus, f"train.augment={augment}").require_train()
        data = TrainingSet.of(Corpus.open(small_corpus, "train"), tiny.prompt, config.max_seconds)
        [first, *_] = stage_batches.planned(data, config, 1, 0)
        rows = [epoch.rows(step) for epoch in first.plans for step in range(len(epoch.steps))][: first.steps]
        clips = sum(map(len, rows))
        found.append((stage_batches.batch_counts(data, config.stages[0], first, 1), first.loads, clips))
    (plain, as_is, clips), (counted, longer, _) = found
    assert counted.audio_hours == plain.audio_hours, "hours are those of the corpus, before augmentation"
    assert counted.steps == plain.steps
    assert longer.seconds.sum() == pytest.approx(2 * as_is.seconds.sum() + 0.5 * clips)
    assert longer.audio_tokens.sum() == pytest.approx(13 * longer.seconds.sum(), rel=0.05)
    shape, learns = learning(COMPILED[0])
    assert peak_memory(shape, learns, longer).sum() > peak_memory(shape, learns, as_is).sum()


def test_a_pilot_runs_the_largest_micro_batch_with_augmentation(
    small_corpus: Path, tiny: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = run_recipe(tmp_path, small_corpus, "train.max_batch_seconds=5", "train.augment={speed: [0.5]}")
    config, taken = made.require_train(), []
    data = TrainingSet.of(Corpus.open(small_corpus, "train"), tiny.prompt, config.max_seconds)
    plans = stage_batches.planned(data, config, 1, 0)
    monkeypatch.setattr(pilot, "measure_passes", lambda *of, accumulates: taken.append((of[2], of[4], accumulates)))
    pilot.pilots(made.model, config, data, plans, shapes.shapes(made.model, config)[0], 0)
    assert len(taken) == len(plans)
    for plan, (alike, heaviest, accumulates) in zip(plans, taken, strict=True):
        assert heaviest.seconds > np.quantile(plan.loads.seconds, 0.75)
        assert heaviest.seconds == pytest.approx(2 * sum(data.seconds[row] for row in heaviest.rows), rel=0.02)
        assert accumulates
        assert len(alike) == 4


@pytest.mark.slow
def test_a_pilot_on_this_machine_predicts_this_machine(
    small_recipe: recipe.Recipe, small_corpus: Path, small_run: Path
) -> None:
    """Within the right order of magnitude, on two shared cores; docs/plan.md has its accuracy on a GPU."""
    summary = commands.plan.run(small_recipe, PlanOptions(pilot=True)).summary
    taken = sum(stage["seconds"] for stage in json.loads((small_run / "report.json").read_text())["stages"])
    assert 0.1 * taken < 3600 * sum(stage["hours"] for stage in summary["stages"]) < 3 * taken
    assert all(stage["pilot"]["rate"] > 1e9 for stage in summary["stages"])
