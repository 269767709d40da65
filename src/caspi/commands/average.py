"""caspi average: averages the best checkpoints of a run and evaluates the average."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from caspi import atomic_output
from caspi import recipe as recipes
from caspi.atomic_output import REPORT
from caspi.commands.outcome import Outcome
from caspi.errors import UsageError
from caspi.reporting import report
from caspi.reporting.report import Page, Table

if TYPE_CHECKING:
    from caspi.training.results import AnyMeasurement, CheckpointResult


@dataclass(frozen=True, slots=True)
class AverageResult:
    """An average and its parts. weights: as given; None: equal weights."""

    measured: AnyMeasurement
    parts: list[CheckpointResult]
    weights: Sequence[float] | None

    @property
    def better_than(self) -> int:
        """Number of parts that the average is better than."""
        return sum(part.measured is not None and self.measured.quality < part.measured.quality for part in self.parts)

    def sentence(self) -> str:
        """`the average has WER 2.9 %, better than 1 of its 3 parts, the best of which has 2.7 %`."""
        best = min((part.measured for part in self.parts if part.measured is not None), key=lambda one: one.quality)
        (name, figure), *_ = self.measured.figures.items()
        return (
            f"the average has {name} {figure}, better than {self.better_than} of its "
            f"{len(self.parts)} parts, the best of which has {best.figures[name]}"
        )

    def as_json(self) -> dict[str, Any]:
        return {
            "parts": [part.as_json() for part in self.parts],
            "weights": self.weights,
            "measured": self.measured.as_json(),
            "better_than": self.better_than,
        }


def average_page(run: str, averaged: AverageResult) -> Page:
    """The checkpoints that were averaged, and whether the average is better."""
    weights = averaged.weights or [1.0] * len(averaged.parts)
    rows = [("the average", "", *averaged.measured.figures.values())]
    rows += [
        (str(part.path), f"{weight / sum(weights):.3f}", *part.measured.figures.values())
        for part, weight in zip(averaged.parts, weights, strict=True)
        if part.measured is not None
    ]
    return Page(
        title=f"caspi average · {run}",
        headline=averaged.sentence(),
        facts=[("checkpoints", str(len(averaged.parts)))],
        parts=[
            Table(
                "The average and its parts",
                ("checkpoint", "weight", *averaged.measured.figures),
                rows,
                note="All on the same subset of the validation split; summed in float64.",
            )
        ],
    )


def run(run: Path, top: int, weights: Sequence[float] | None = None) -> Outcome:
    """Averages the best checkpoints of a run's last stage, and evaluates the average like its parts."""
    from caspi.model.config import ModelConfig
    from caspi.training.checkpoint import averaging
    from caspi.training.checkpoint import files as checkpoints
    from caspi.training.checkpoint.model_card import model_card
    from caspi.training.checkpoint.provenance import Provenance
    from caspi.training.validation import measure_checkpoint

    if atomic_output.stage_of(run) != "train":
        raise UsageError(f"{run} is not a finished run: caspi train makes one")
    content = json.loads((run / REPORT).read_text(encoding="utf-8"))
    recipe = recipes.load(run / report.RECIPE)
    stage = Path(content["stages"][-1]["path"])
    chosen = checkpoints.best_checkpoints(run / stage.name if (run / stage.name).is_dir() else stage, top)
    if weights is not None and len(weights) != len(chosen):
        raise UsageError(f"--weights: {len(weights)} given for {len(chosen)} checkpoints")
    out = run / "average"
    partial = atomic_output.begin_atomic(out, "average")
    averaging.average(chosen, partial, weights)
    start = ModelConfig(task=recipe.model.task, start=str(partial))
    measured = measure_checkpoint(start, Path(content["corpus"]), recipe.require_train(), recipe.language)
    parts = [checkpoints.result_of(path) for path in chosen]
    averaged = AverageResult(measured, parts, weights)
    fingerprint = report.fingerprint(partial)
    summary = {"stage": "average", "run": str(run), **averaged.as_json(), "fingerprint": fingerprint}
    steps = ", ".join(str(part.step) for part in parts)
    provenance = Provenance(
        recipe.name, content["recipe"], recipe.language, recipe.model.start, Path(content["corpus"]),
        recipe.model.task,
    )  # fmt: skip
    what = f"average of {len(chosen)} checkpoints (steps {steps}) of stage {content['stages'][-1]['name']}"
    text = model_card(provenance, what, measured.figures, report.environment(), recipe.require_train().max_seconds)
    (partial / "README.md").write_text(text, encoding="utf-8")
    report.write_report(partial, average_page(str(run), averaged), summary)
    atomic_output.commit_atomic(partial, out)
    candidates = [(measured.quality, out), *((part.measured.quality, part.path) for part in parts if part.measured)]
    best = min(candidates, key=lambda one: one[0])[1]
    checkpoints.point_to_best(run, best)
    summary["best"] = str(best)
    use = "" if best == out else f"; use {best}, which {run / checkpoints.BEST} names"
    return Outcome(f"{averaged.sentence()}; {what}{use}", run / checkpoints.BEST, summary)
