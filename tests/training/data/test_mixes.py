from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from caspi import commands, recipe
from caspi.corpus.store import Corpus
from caspi.errors import UsageError
from caspi.model.loading import LoadedModel
from caspi.recipe import Recipe
from caspi.training.config import Mix, TrainConfig
from caspi.training.data.dataset import TrainingSet
from caspi.training.data.stage_plan import plan_stage
from caspi.training.data.steps import PlannedSteps
from caspi.training.planning.plan import PlanOptions
from tests.conftest import RECIPES, small_overrides, tone
from tests.support import write_manifest


@pytest.fixture(scope="module")
def two_sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mix")
    for name, count in (("much", 30), ("little", 6)):
        clips = [(tone(1.0, seed=1000 * count + n), f"שלום {name} {n} {'אבגד'[n % 4] * 4}") for n in range(count)]
        write_manifest(folder, clips, name, previous="מה שנאמר קודם")
    path = folder / "recipe.yaml"
    path.write_text(
        f"name: t\ncorpus:\n  path: {folder / 'corpus'}\n  workers: 1\n  splits: {{validation: 0, test: 0}}\n"
        "  filters: {min_script_share: 0.1}\n  sources:\n"
        + "".join(f"    - {{kind: manifest, name: {n}, path: {folder / n}.jsonl}}\n" for n in ("much", "little"))
    )
    commands.prepare.run(recipe.load(path))
    return folder / "corpus"


def training_set(corpus: Path, tiny: LoadedModel) -> TrainingSet:
    return TrainingSet.of(Corpus.open(corpus, "train"), tiny.prompt, 30.0)


def config(**fields: object) -> TrainConfig:
    stages = fields.pop("stages", [{"name": "a", "groups": {"embeddings": 1e-3}}])
    return TrainConfig.model_validate({"path": "x", "effective_batch": 6, "stages": stages, **fields})


def test_stages_use_the_mixes_they_name(two_sources: Path, tiny: LoadedModel) -> None:
    """Pre-train on one source, then on a mix: two stages."""
    data = training_set(two_sources, tiny)
    made = config(
        mixes={"first": {"sources": {"much": 1.0}}, "both": {"sources": {"much": 0.5, "little": 0.5}}},
        stages=[
            {"name": "a", "groups": {"embeddings": 1e-3}, "mix": "first", "epochs": 1},
            {"name": "b", "groups": {"embeddings": 1e-3}, "mix": "both", "epochs": 2},
        ],
    )
    seen = []
    for stage in made.stages:
        plans, steps = plan_stage(data, made, stage, 1, 0)
        rows = np.concatenate([plan.rows(n) for plan in plans for n in range(len(plan.steps))])
        seen.append([data.sources[row] for row in rows])
        assert steps == sum(len(plan.steps) for plan in plans)
    assert set(seen[0]) == {"much"}
    assert seen[1].count("little") == pytest.approx(36, abs=2)
    assert seen[1].count("much") == pytest.approx(36, abs=2)


def test_an_undefined_mix_is_refused() -> None:
    with pytest.raises(ValueError, match=r"stage a: mix both is not one of train.mixes \(there are none\)"):
        config(stages=[{"name": "a", "groups": {"embeddings": 1e-3}, "mix": "both"}])


def test_a_mix_of_an_unknown_source_is_refused(two_sources: Path, tiny: LoadedModel) -> None:
    made = config(mixes={"m": Mix(sources={"other": 1.0}).model_dump()}, stages=[
        {"name": "a", "groups": {"embeddings": 1e-3}, "mix": "m"}
    ])  # fmt: skip
    with pytest.raises(UsageError, match="no utterances of other; it has little, much"):
        plan_stage(training_set(two_sources, tiny), made, made.stages[0], 1, 0)


@pytest.mark.parametrize("probability", [0.0, 0.5, 1.0])
def test_previous_text_goes_into_the_system_turn(two_sources: Path, tiny: LoadedModel, probability: float) -> None:
    made = config(previous_text=probability)
    data = TrainingSet.to_train_on(Corpus.open(two_sources, "train"), tiny.prompt, made, 0)
    plans, steps = plan_stage(data, made, made.stages[0], 1, 0)

    def turns(seed: int) -> list[str]:
        planned = PlannedSteps(data, plans, steps, 0, tiny.prompt, made, made.stages[0], seed)
        batches = [batch for n in range(steps) for batch in planned[n].batches]
        for batch in batches:  # included in the plan, so that budgets are kept
            lengths = np.diff(batch.sequences.bounds)
            assert (lengths <= plans[0].lengths.sequence_tokens[list(batch.rows)]).all()
        decoded = [tiny.processor.tokenizer.decode(batch.sequences.input_ids.flatten().tolist()) for batch in batches]
        return [turn for text in decoded for turn in text.split("<|im_start|>system\n")[1:]]

    found = turns(0)
    assert len(found) == 36
    with_text = sum(turn.startswith("מה שנאמר קודם<|im_end|>") for turn in found)
    without = sum(turn.startswith("<|im_end|>") for turn in found)
    assert with_text + without == 36
    assert abs(with_text - 36 * probability) <= (10 if probability == 0.5 else 0)
    assert found == turns(0)
    assert not any("מה שנאמר קודם" in turn.split("assistant")[1] for turn in found)


def test_the_recipe_of_a_run_with_mixes_trains(tmp_path: Path, small_recipe: Recipe, small_corpus: Path) -> None:
    overrides = (
        *small_overrides(tmp_path),
        f"corpus.path={small_corpus}",
        "train.mixes={m: {sources: {synthetic: {epochs: 2}}}}",
        "train.stages.0.mix=m",
        "train.stages.0.epochs=1",
        "train.previous_text=0.5",
    )
    made = recipe.load(RECIPES / "demo.yaml", overrides)
    summary = commands.plan.run(made, PlanOptions()).summary
    assert [stage["mix"] for stage in summary["stages"]] == ["m", ""]
    assert summary["stages"][0]["steps"] == 12  # twice 48 utterances, eight per step
    assert commands.train.run(made).summary["stages"][0]["steps"] == 12
