"""The shipped recipes: their settings, and that each runs on tiny if only model and corpus are replaced."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import Qwen3ASRForConditionalGeneration

from caspi import commands, recipe
from caspi.model.config import GroupTraining, ModelConfig
from caspi.training.planning import shapes
from tests.conftest import RECIPES, tone
from tests.support import write_manifest

RELEASED = ModelConfig(start="Qwen/Qwen3-ASR-1.7B-hf", init="random", scale="1.7b")


def stages(name: str) -> tuple:  # type: ignore[type-arg]
    return recipe.load(RECIPES / f"{name}.yaml").require_train().stages


def trained(name: str) -> list[dict[str, int]]:
    config = recipe.load(RECIPES / f"{name}.yaml").require_train()
    return [{row.group: row.parameters for row in stage.rows} for stage in shapes.shapes(RELEASED, config)[1]]


def test_round1_trains_everything_at_one_rate() -> None:
    config = recipe.load(RECIPES / "round1.yaml").require_train()
    [stage] = config.stages
    assert (config.effective_batch, stage.epochs) == (256, 3)
    assert {group.lr for group in stage.groups.values()} == {2e-4}
    assert sum(trained("round1")[0].values()) == 2_038_052_480


def test_round2_unfreezes_gradually() -> None:
    config = recipe.load(RECIPES / "round2.yaml").require_train()
    first, second = config.stages
    assert (config.effective_batch, config.max_seconds, first.epochs, second.epochs) == (64, 15, 2, 3)
    assert {name: group.lr for name, group in first.groups.items()} == {
        "projector": 2e-4, "decoder_layers": 5e-5, "embeddings": 1e-4,
    }  # fmt: skip
    assert {name: group.lr for name, group in second.groups.items()} == {
        "projector": 1e-4, "audio_layers": 3e-5, "decoder_layers": 3e-5, "embeddings": 1e-4,
    }  # fmt: skip
    layer = 1_409.4e6 / 28
    assert trained("round2")[0]["decoder_layers"] == pytest.approx(12 * layer, rel=1e-3)
    assert trained("round2")[1]["audio_layers"] == pytest.approx(8 * 302.3e6 / 24, rel=1e-3)


def test_round3_has_two_stages_and_previous_text_in_half_of_its_prompts() -> None:
    config = recipe.load(RECIPES / "round3.yaml").require_train()
    assert [(stage.mix, stage.epochs) for stage in config.stages] == [("parliament", 3), ("all", 2)]
    assert list(config.mixes["parliament"].sources) == ["knesset"]
    assert config.previous_text == 0.5


def test_lora_is_of_rank_16_and_merged() -> None:
    [stage] = stages("lora")
    config = stage.groups["decoder_layers"]
    assert isinstance(config, GroupTraining)
    assert config.lora is not None
    assert (config.lora.rank, config.lora.alpha, config.lora.dropout) == (16, 32, 0.1)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus with the three sources that the recipes name."""
    folder = tmp_path_factory.mktemp("rounds")
    sources = []
    for name, count in (("knesset", 12), ("crowd-transcribe", 8), ("crowd-recital", 4)):
        clips = [(tone(1.0, seed=len(name) * 100 + n), f"שלום {'אבגד'[n % 4] * 3} {n}") for n in range(count)]
        write_manifest(folder, clips, name, previous="מה שנאמר קודם")
        sources.append(f"{{kind: manifest, name: {name}, path: {folder / name}.jsonl}}")
    write_manifest(folder, [(tone(1.0, seed=9), "שלום רב")] * 1, "held-out")
    sources.append(f"{{kind: manifest, name: held-out, path: {folder / 'held-out'}.jsonl, split: validation}}")
    path = folder / "recipe.yaml"
    path.write_text(
        f"name: t\ncorpus:\n  path: {folder / 'corpus'}\n  workers: 1\n  splits: {{validation: 0, test: 0}}\n"
        f"  filters: {{min_script_share: 0.1}}\n  sources: [{', '.join(sources)}]\n"
    )
    commands.prepare.run(recipe.load(path))
    return folder / "corpus"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["round1", "round2", "round3", "lora"])
def test_a_shipped_recipe_runs_on_tiny(corpus: Path, tmp_path: Path, name: str) -> None:
    overrides = (f"corpus.path={corpus}", f"train.path={tmp_path / 'train'}", "model.start=tiny", "train.workers=0")
    summary = commands.train.run(recipe.load(RECIPES / f"{name}.yaml", overrides)).summary
    assert len(summary["stages"]) == len(stages(name))
    Qwen3ASRForConditionalGeneration.from_pretrained(summary["final"])
    rates = [json.loads(line) for line in (tmp_path / "train" / "metrics.jsonl").read_text().splitlines()]
    assert all("eval_wer" in row or "lr" in row for row in rates)
