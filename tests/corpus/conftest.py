"""Small corpora that tests of this folder share."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from caspi import recipe

"""Encoders and small corpora that several tests of this folder use."""


@pytest.fixture
def recipe_of(tmp_path: Path) -> Callable[..., recipe.Recipe]:
    """Writes and reads a recipe: `recipe_of(sources=[...], filters={...})`, the corpus in `tmp_path/corpus`."""

    def make(sources: list[dict[str, object]], *overrides: str, **corpus: object) -> recipe.Recipe:
        content = {"path": str(tmp_path / "corpus"), "workers": 1, "sources": sources, **corpus}
        path = tmp_path / "recipe.yaml"
        path.write_text(json.dumps({"name": "t", "corpus": content}, default=str), encoding="utf-8")  # JSON is YAML
        return recipe.load(path, overrides)

    return make
