"""The origin of a run, for model cards and trackers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from caspi.atomic_output import REPORT, default_output
from caspi.model.config import Task


@dataclass(frozen=True, slots=True)
class Provenance:
    """recipe: as resolved YAML. base: the model training started from. corpus: its folder. task: of the model."""

    name: str
    recipe: str
    language: str
    base: str
    corpus: Path
    task: Task = "transcribe"

    @property
    def corpus_report(self) -> dict[str, Any]:
        """The report that `prepare` wrote about the corpus."""
        report: dict[str, Any] = json.loads((self.corpus / REPORT).read_text(encoding="utf-8"))
        return report

    @property
    def reports(self) -> list[Path]:
        """The existing reports of `prepare` and `audit` about the corpus."""
        folders = (self.corpus, default_output(self.corpus, "audit"))
        return [folder / REPORT for folder in folders if (folder / REPORT).is_file()]
