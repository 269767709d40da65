"""The reference pages name every key and every command that there is."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from caspi.training.config import StageConfig, TrainConfig
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_reference", ROOT / "tools" / "make_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_key_of_a_recipe_has_a_line(reference: ModuleType, tmp_path: Path) -> None:
    reference.main(str(tmp_path))
    page = (tmp_path / "recipe.md").read_text(encoding="utf-8")
    for model in (TrainConfig, StageConfig):
        for key in model.model_fields:
            assert f"| `{key}` |" in page, key
    assert "| `max_bad_steps` | whole number | `5` | ≥ 1 |" in page
    assert "## train.stages.objective (distillation)" in page


def test_every_command_has_a_section(reference: ModuleType) -> None:
    page = reference.commands_page()
    for name in ("prepare", "corpus sample", "train", "evaluate", "augment-preview", "doctor"):
        assert f"## caspi {name}\n" in page
    assert "| `--stress` | " in page
