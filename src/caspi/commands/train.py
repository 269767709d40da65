"""caspi train: runs the stages of a recipe."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table as TextTable

from caspi import recipe as recipes
from caspi.atomic_output import REPORT, read_jsonl
from caspi.commands.outcome import Outcome
from caspi.progress import duration
from caspi.recipe import Recipe
from caspi.reporting import report
from caspi.reporting.charts import Chart, Line
from caspi.reporting.report import Page, Table
from caspi.reporting.wording import SYNTHETIC_NOTE, hours_or_minutes

if TYPE_CHECKING:
    from caspi.training.planning.costs import ModelShape
    from caspi.training.planning.shapes import StageShape
    from caspi.training.results import AnyMeasurement, CheckpointResult, StageResult


def train_page(name: str, stages: Sequence[StageResult], metrics_file: Path, *, synthetic: bool) -> Page:
    """Loss, WER and the parameters that each stage trained."""
    lines = read_jsonl(metrics_file)
    offsets, total = {}, 0
    for stage in stages:
        offsets[stage.name] = total
        total += stage.steps

    def curve(key: str, scale: float = 1) -> list[tuple[float, float]]:
        return [
            (offsets[row["stage"]] + row["step"], scale * row[key])
            for row in lines
            if key in row and row["stage"] in offsets
        ]

    last = stages[-1].measured
    return Page(
        title=f"caspi train · {name}",
        headline="validation: " + ", ".join(f"{name} {figure}" for name, figure in last.figures.items()),
        facts=[
            ("stages", str(len(stages))),
            ("steps", f"{total:,}"),
            ("audio trained on", hours_or_minutes(sum(stage.audio_hours for stage in stages))),
            ("time taken", duration(sum(stage.seconds for stage in stages))),
        ],
        synthetic=SYNTHETIC_NOTE if synthetic else "",
        parts=[
            Chart(
                "Loss per target token",
                [Line("training", curve("loss")), Line("validation", curve("eval_loss"))],
                "step",
                "loss",
            ),
            _validation(last, curve),
            Table(
                "What was trained",
                ("stage", "group", "learning rate", "parameters", "note"),
                [
                    (stage.name, group.group, f"{group.lr:g}", f"{group.parameters:,}", group.note)
                    for stage in stages
                    for group in stage.groups
                ],
            ),
            _checkpoints([checkpoint for stage in stages for checkpoint in stage.checkpoints]),
        ],
    )


def _validation(measured: AnyMeasurement, curve: Callable[[str, float], list[tuple[float, float]]]) -> Chart:
    """What the stages were evaluated by."""
    if "start_shift" in measured.as_json():
        lines = [Line("starts", curve("eval_start_shift", 1000)), Line("ends", curve("eval_end_shift", 1000))]
        return Chart("Validation: mean distance from the true times", lines, "step", "ms")
    return Chart("Validation", [Line("WER", curve("eval_wer", 100)), Line("CER", curve("eval_cer", 100))], "step", "%")


def _checkpoints(checkpoints: Sequence[CheckpointResult]) -> Table:
    figures = next(one.measured.figures for one in reversed(checkpoints) if one.measured is not None)
    return Table(
        "Checkpoints",
        ("checkpoint", *figures),
        [
            (str(checkpoint.path), *measured.figures.values())
            for checkpoint in checkpoints
            if (measured := checkpoint.measured) is not None
        ],
    )


def dry_run(recipe: Recipe) -> Outcome:
    """Shows the groups and parameter counts of every stage, on the meta device."""
    from caspi.training.planning.shapes import shapes

    config = recipe.require_train()
    shape, stages = shapes(recipe.model, config)
    summary = {
        "stage": "train",
        "dry_run": True,
        "parameters": shape.parameters,
        "groups": shape.groups,
        "stages": [
            {"name": stage.name, "groups": [asdict(row) for row in found.rows], "trainable": found.learning.parameters}
            for stage, found in zip(config.stages, stages, strict=True)
        ],
    }
    tables = _shape_tables(shape, dict(zip((stage.name for stage in config.stages), stages, strict=True)))
    return Outcome(f"{shape.parameters:,} parameters, nothing allocated", Path(), summary, tables=tables)


def _shape_tables(shape: ModelShape, stages: dict[str, StageShape]) -> tuple[TextTable, TextTable]:
    """A table of the parameters of every group, and one of what every stage trains."""
    groups = TextTable(title=f"{shape.parameters:,} parameters", title_justify="left")
    groups.add_column("group")
    groups.add_column("parameters", justify="right")
    for name, count in shape.groups.items():
        groups.add_row(name, f"{count:,}")
    trained = TextTable(title="Stages", title_justify="left")
    for column in ("stage", "trains", "lr", "parameters", "note"):
        trained.add_column(column, justify="right" if column in ("lr", "parameters") else "left")
    for name, stage in stages.items():
        for row in stage.rows:
            trained.add_row(name, row.group, f"{row.lr:g}", f"{row.parameters:,}", row.note)
        total = f"{stage.learning.parameters:,}"
        trained.add_row(name, "total", "", total, "", style="bold", end_section=True)
    return groups, trained


def run(recipe: Recipe) -> Outcome:
    """Runs all stages, or resumes the run, and writes the report."""
    from caspi.training.checkpoint.provenance import Provenance
    from caspi.training.checkpoint.uploads import as_json
    from caspi.training.distributed.processes import processes, shutdown_distributed
    from caspi.training.run import METRICS
    from caspi.training.run import train_run as run

    config = recipe.require_train()
    text = recipes.dump(recipe)
    base, task = recipe.model.start, recipe.model.task
    provenance = Provenance(recipe.name, text, recipe.language, base, recipe.corpus.path, task)
    result = run(config, recipe.model, provenance, recipe.seed)
    summary = {
        "stage": "train",
        "name": recipe.name,
        "corpus": str(recipe.corpus.path),
        "corpus_fingerprint": report.fingerprint(recipe.corpus.path),
        "synthetic": _is_synthetic(recipe.corpus.path),
        "shuffled_transcripts": config.shuffle_transcripts,
        "seed": recipe.seed,
        "stages": [stage.as_json() for stage in result.stages],
        "final": str(result.final),
        "hub": as_json(result.uploaded),
    }
    page = config.path / report.HTML
    if processes().is_main_process:
        synthetic = _is_synthetic(recipe.corpus.path)
        content = train_page(recipe.name, result.stages, config.path / METRICS, synthetic=synthetic)
        report.write_report(config.path, content, summary, text)
    last = result.stages[-1].measured
    figures = ", ".join(f"{name} {figure}" for name, figure in last.figures.items())
    line = f"validation: {figures}; {result.final}"
    is_main = processes().is_main_process
    outcome = Outcome(line if is_main else "", page if is_main else Path(), summary)
    shutdown_distributed()
    return outcome


def _is_synthetic(folder: Path) -> bool:
    content = json.loads((folder / REPORT).read_text(encoding="utf-8"))
    return bool(content.get("synthetic"))
