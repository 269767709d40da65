"""Results that others published, for comparison with ours."""

from __future__ import annotations

from importlib import resources
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict


class Published(BaseModel):
    """A word error rate that its publisher measured, as a fraction. set: the name of the corpus in caspi; language: of
    its speech."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    system: str
    set: str
    language: str
    wer: float
    source: str
    date: str


def published() -> list[Published]:
    """The rows of published.yaml."""
    rows: list[dict[str, Any]] = yaml.safe_load(
        resources.files(__package__).joinpath("published.yaml").read_text("utf-8")
    )
    return [
        Published(
            system=row["system"], set=name, language=row["language"], wer=wer, source=row["source"], date=row["date"]
        )
        for row in rows
        for name, wer in row["wer"].items()
    ]
