"""When blocks are compiled, and when not."""

from __future__ import annotations

from pathlib import Path

import pytest

from caspi import commands
from caspi.errors import UsageError
from caspi.training.config import StageConfig, TrainConfig
from caspi.training.stage_setup import compiles
from tests.support import run_recipe

ADAPTED = {"decoder_layers": {"lr": 1e-4, "lora": {"rank": 4, "dropout": 0.1}}}
EXACT = {"decoder_layers": {"lr": 1e-4, "lora": {"rank": 4, "dropout": 0.0}}}


@pytest.mark.parametrize(
    ("groups", "every", "device", "expected"),
    [
        (ADAPTED, 0, "cuda", True),
        (ADAPTED, 1, "cuda", False),  # torch.utils.checkpoint refuses it (H200, torch 2.11, docs/log/2026-11-27.md)
        (EXACT, 1, "cuda", True),
        ({"decoder_layers": 1e-4}, 1, "cuda", True),
        ({"decoder_layers": 1e-4}, 0, "cpu", False),
    ],
)
def test_blocks_are_compiled_only_if_useful_and_possible(groups: dict, every: int, device: str, expected: bool) -> None:  # type: ignore[type-arg]
    stage = StageConfig.model_validate({"name": "s", "groups": groups})
    config = TrainConfig.model_validate({
        "path": "x", "effective_batch": 8, "activation_checkpointing_every": every, "stages": [stage],
    })  # fmt: skip
    assert compiles(config, stage, on_gpu=device == "cuda") is expected


def test_compiling_adapter_dropout_with_checkpointing_is_refused(small_corpus: Path, tmp_path: Path) -> None:
    stage = "train.stages=[{name: s, epochs: 1, groups: {decoder_layers: {lr: 1e-4, lora: {rank: 4, dropout: 0.1}}}}]"
    training_recipe = run_recipe(
        tmp_path, small_corpus, stage, "train.activation_checkpointing_every=1", "train.compile=true"
    )
    with pytest.raises(
        UsageError, match=r"stage s: blocks with adapter dropout .* use train.compile=auto, dropout: 0 or"
    ):
        commands.train.run(training_recipe)


def test_training_from_an_export_in_eight_bits_is_refused(small_corpus: Path, tmp_path: Path) -> None:
    commands.export.run("tiny", "int8", tmp_path / "int8")
    with pytest.raises(UsageError, match="is an export in eight bits: train from the model that it was exported from"):
        commands.train.run(run_recipe(tmp_path, small_corpus, f"model.start={tmp_path / 'int8'}"))
