"""caspi train: the stages of a recipe."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from caspi import recipe as recipes
from caspi.atomic_output import REPORT, read_jsonl
from caspi.commands.outcome import Outcome
from caspi.progress import duration
from caspi.recipe import Recipe
from caspi.reporting import report
from caspi.reporting.charts import Chart, Line
from caspi.reporting.report import Page, Table
from caspi.reporting.wording import SYNTHETIC_NOTE, hours_or_minutes, percent, rate


def train_page(name: str, summary: dict[str, Any], metrics_file: Path) -> Page:
    """Loss, WER and what each stage trained."""
    lines = read_jsonl(metrics_file)
    offsets, total = {}, 0
    for stage in summary["stages"]:
        offsets[stage["name"]] = total
        total += stage["steps"]

    def curve(key: str, scale: float = 1) -> list[tuple[float, float]]:
        return [
            (offsets[row["stage"]] + row["step"], scale * row[key])
            for row in lines
            if key in row and row["stage"] in offsets
        ]

    last = summary["stages"][-1]["checkpoints"][-1]
    hours = sum(stage["audio_hours"] for stage in summary["stages"])
    taken = sum(stage["seconds"] for stage in summary["stages"])
    return Page(
        title=f"caspi train · {name}",
        headline=f"validation WER {rate(last['wer'])}, CER {rate(last['cer'])}, loss {last['loss']:.3f} per token",
        facts=[
            ("stages", str(len(summary["stages"]))),
            ("steps", f"{total:,}"),
            ("audio trained on", hours_or_minutes(hours)),
            ("time taken", duration(taken)),
        ],
        synthetic=SYNTHETIC_NOTE if summary.get("synthetic") else "",
        parts=[
            Chart(
                "Loss per target token",
                [Line("training", curve("loss")), Line("validation", curve("eval_loss"))],
                "step",
                "loss",
            ),
            Chart(
                "Validation", [Line("WER", curve("eval_wer", 100)), Line("CER", curve("eval_cer", 100))], "step", "%"
            ),
            Table(
                "What was trained",
                ("stage", "group", "rate", "parameters", ""),
                [
                    (stage["name"], g["group"], f"{g['lr']:g}", f"{g['parameters']:,}", g["note"])
                    for stage in summary["stages"]
                    for g in stage["groups"]
                ],
            ),
            _checkpoints("Checkpoints", [c for stage in summary["stages"] for c in stage["checkpoints"]]),
        ],
    )


def _checkpoints(title: str, found: list[dict[str, Any]]) -> Table:
    return Table(
        title,
        ("checkpoint", "WER", "CER", "loss"),
        [(c["path"], rate(c["wer"]), rate(c["cer"]), f"{c['loss']:.4f}") for c in found],
    )


def dry_run(recipe: Recipe) -> Outcome:
    """Groups and trainable counts of every stage, on the meta device."""
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
    return Outcome(f"{shape.parameters:,} parameters, nothing allocated", Path(), summary)


def run(recipe: Recipe) -> Outcome:
    """All stages, or what is left of them."""
    from caspi.training.checkpoint.provenance import Provenance
    from caspi.training.checkpoint.uploads import as_json
    from caspi.training.distributed.processes import processes, shutdown_distributed
    from caspi.training.run import METRICS
    from caspi.training.run import train_run as run

    config = recipe.require_train()
    text = recipes.dump(recipe)
    provenance = Provenance(recipe.name, text, recipe.language, recipe.model.start, recipe.corpus.path)
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
        content = train_page(recipe.name, summary, config.path / METRICS)
        report.write_report(config.path, content, summary, text)
    last = result.stages[-1].checkpoints[-1].measured
    assert last is not None  # a stage that was trained to its end was measured
    line = f"validation WER {percent(last.wer)}, loss {last.loss:.3f} per token; {result.final}"
    is_main = processes().is_main_process
    outcome = Outcome(line if is_main else "", page if is_main else Path(), summary)
    shutdown_distributed()
    return outcome


def _is_synthetic(folder: Path) -> bool:
    content = json.loads((folder / REPORT).read_text(encoding="utf-8"))
    return bool(content.get("synthetic"))
