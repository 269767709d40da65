"""The reference pages name and explain every key and every command that there is."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
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
    assert "| `max_bad_steps` | whole number | steps | `5` | ≥ 1 | The run stops after" in page
    assert "| `gain_db` | list of 2: number | dB | none | ≥ -100, ≤ 100 |" in page
    assert "Hu et al. 2021, [arXiv:2106.09685](https://arxiv.org/abs/2106.09685) |" in page
    assert "## train.stages.objective (distillation)" in page


def test_every_key_has_a_meaning(reference: ModuleType) -> None:
    for path, model in reference.sections():
        meanings = reference.meanings(model)
        assert [f"{path}.{key}" for key in model.model_fields if not meanings.get(key)] == []


def test_every_number_has_a_unit(reference: ModuleType) -> None:
    keys = [
        (f"{path}.{key}", field) for path, model in reference.sections() for key, field in model.model_fields.items()
    ]
    numbers = [(key, field) for key, field in keys if reference.has_numbers(field.annotation)]
    assert "train.stages.groups.top" in dict(numbers)
    assert "train.compile" not in dict(numbers)
    assert [key for key, field in numbers if not reference.unit(field)] == []


def test_a_recipe_is_read_without_torch() -> None:
    code = "import sys, caspi.recipe; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_command_has_a_section(reference: ModuleType) -> None:
    page = reference.commands_page()
    for name in ("prepare", "corpus sample", "train", "evaluate", "augment-preview", "doctor"):
        assert f"## caspi {name}\n" in page
    assert "| `--stress` | " in page
