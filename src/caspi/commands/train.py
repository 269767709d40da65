"""caspi train: runs the stages of a recipe."""

from __future__ import annotations

import contextlib
import itertools
import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table as TextTable

from caspi import recipe as recipes
from caspi.atomic_output import REPORT, read_jsonl, write_whole
from caspi.commands.outcome import Outcome
from caspi.progress import duration
from caspi.recipe import Recipe
from caspi.reporting import report
from caspi.reporting.charts import Chart, Line
from caspi.reporting.report import Page, Table
from caspi.reporting.wording import SYNTHETIC_NOTE, hours_or_minutes, percent

if TYPE_CHECKING:
    from caspi.training.planning.costs import ModelShape
    from caspi.training.planning.shapes import StageShape
    from caspi.training.results import CheckpointResult, StageResult


def train_page(name: str, stages: Sequence[StageResult], metrics_file: Path, *, synthetic: bool) -> Page:
    """Loss, WER and the parameters that each stage trained."""
    last = stages[-1].measured
    return Page(
        title=f"caspi train · {name}",
        headline="validation: " + ", ".join(f"{name} {figure}" for name, figure in last.figures.items()),
        facts=[
            ("stages", str(len(stages))),
            ("steps", f"{sum(stage.steps for stage in stages):,}"),
            ("audio trained on", hours_or_minutes(sum(stage.audio_hours for stage in stages))),
            ("time taken", duration(sum(stage.seconds for stage in stages))),
        ],
        synthetic=SYNTHETIC_NOTE if synthetic else "",
        parts=[
            *training_curves(metrics_file),
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


class LivePage:
    """Writes the page of a run while it trains, at most every few seconds."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe, self._written = recipe, 0.0

    def __call__(self) -> None:
        """Called after every line of the metrics. A page that cannot be written does not end the run."""
        if time.monotonic() - self._written < _PAGE_SECONDS:
            return
        self._written = time.monotonic()
        folder = self._recipe.require_train().path
        with contextlib.suppress(OSError):
            text = report.render(running_page(self._recipe), {"environment": report.environment()})
            write_whole(folder / report.HTML, text)


_PAGE_SECONDS = 20.0


def running_page(recipe: Recipe) -> Page:
    """Where training is, with the curves so far."""
    from caspi.training.run import METRICS

    train = recipe.require_train()
    lines = read_jsonl(train.path / METRICS)
    last = lines[-1]
    speeds = [line for line in lines if "seconds_left" in line]
    scored: dict[str, Any] = next((line for line in reversed(lines) if "eval_loss" in line), {})
    number = [stage.name for stage in train.stages].index(last["stage"]) + 1
    facts = [("stage", f"{last['stage']} ({number} of {len(train.stages)})")]
    if speeds:
        facts += [
            ("speed", f"{speeds[-1]['audio_seconds_per_second']:.0f} s of audio per second"),
            ("left in the stage", duration(speeds[-1]["seconds_left"])),
        ]
    if "eval_wer" in scored:
        facts.append(("validation WER", percent(scored["eval_wer"])))
    return Page(
        title=f"caspi train · {recipe.name}",
        headline=f"running: stage {last['stage']}, step {last['step']:,}",
        facts=facts,
        synthetic=SYNTHETIC_NOTE if _is_synthetic(recipe.corpus.path) else "",
        parts=training_curves(train.path / METRICS),
        refresh=round(_PAGE_SECONDS),
    )


def training_curves(metrics_file: Path) -> list[Chart]:
    """Loss and validation over the steps of all stages, so far."""
    lines = read_jsonl(metrics_file) if metrics_file.is_file() else []
    lengths = {line["stage"]: line["steps"] for line in lines if "steps" in line}
    offsets = dict(zip(lengths, itertools.accumulate(lengths.values(), initial=0), strict=False))
    aligner = any("eval_start_shift" in line for line in lines)

    def curve(key: str, scale: float = 1) -> list[tuple[float, float]]:
        return [
            (offsets[row["stage"]] + row["step"], scale * row[key])
            for row in lines
            if key in row and row["stage"] in offsets
        ]

    loss = [Line("training", curve("loss")), Line("validation", curve("eval_loss"))]
    if aligner:
        measured = [Line("starts", curve("eval_start_shift", 1000)), Line("ends", curve("eval_end_shift", 1000))]
        validation = Chart("Validation: mean distance from the true times", measured, "step", "ms")
    else:
        measured = [Line("WER", curve("eval_wer", 100)), Line("CER", curve("eval_cer", 100))]
        validation = Chart("Validation", measured, "step", "%")
    return [Chart("Loss per target token", loss, "step", "loss"), validation]


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
    result = run(config, recipe.model, provenance, recipe.seed, LivePage(recipe))
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
