"""Where a run comes from, for what it leaves to others: model cards and trackers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from caspi.atomic_output import REPORT


@dataclass(frozen=True, slots=True)
class Provenance:
    """recipe: as resolved YAML. base: the model training started from. corpus: its folder."""

    name: str
    recipe: str
    language: str
    base: str
    corpus: Path

    @property
    def corpus_report(self) -> dict[str, Any]:
        """What `prepare` says of the corpus."""
        report: dict[str, Any] = json.loads((self.corpus / REPORT).read_text(encoding="utf-8"))
        return report

    @property
    def reports(self) -> list[Path]:
        """Reports of the corpus and of its audit, those that are there, as `prepare` and `audit` leave them."""
        folders = (self.corpus, self.corpus.with_name(self.corpus.name + "-audit"))
        return [folder / REPORT for folder in folders if (folder / REPORT).is_file()]
