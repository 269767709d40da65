"""caspi average: the best checkpoints of a run, averaged and measured."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from caspi import atomic_output
from caspi import recipe as recipes
from caspi.atomic_output import REPORT
from caspi.commands.outcome import Outcome
from caspi.errors import UsageError
from caspi.reporting import report
from caspi.reporting.report import Page, Table
from caspi.reporting.wording import percent, rate


def average_verdict(summary: dict[str, Any]) -> str:
    """`the average has WER 0.029, better than 1 of its 3 parts, the best of which has 0.027`."""
    parts = summary["parts"]
    best = min(part["wer"] for part in parts)
    wer = f"the average has WER {percent(summary['measured']['wer'])}"
    return (
        f"{wer}, better than {summary['better_than']} of its {len(parts)} parts, the best of which has {percent(best)}"
    )


def average_page(run: str, summary: dict[str, Any]) -> Page:
    """Which checkpoints were averaged, and whether that improved the model."""
    parts = summary["parts"]
    weights = summary["weights"] or [1.0] * len(parts)
    rows = [("the average", "", rate(m["wer"]), rate(m["cer"]), f"{m['loss']:.4f}") for m in [summary["measured"]]]
    rows += [
        (p["path"], f"{weight / sum(weights):.3f}", rate(p["wer"]), rate(p["cer"]), f"{p['loss']:.4f}")
        for p, weight in zip(parts, weights, strict=True)
    ]
    return Page(
        title=f"caspi average · {run}",
        headline=average_verdict(summary),
        facts=[("checkpoints", str(len(parts)))],
        parts=[
            Table(
                "The average and its parts",
                ("checkpoint", "weight", "WER", "CER", "loss"),
                rows,
                note="All on the same subset of the validation split; summed in float64.",
            )
        ],
    )


def run(run: Path, top: int, weights: Sequence[float] | None = None) -> Outcome:
    """The best checkpoints of a run's last stage, averaged, and measured as they were."""
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
        raise UsageError(f"--weights: {len(weights)} given, {len(chosen)} checkpoints are averaged")
    out = run / "average"
    partial = atomic_output.begin_atomic(out, "average")
    averaging.average(chosen, partial, weights)
    measured = measure_checkpoint(partial, Path(content["corpus"]), recipe.require_train(), recipe.language)
    parts = [checkpoints.result_of(path) for path in chosen]
    summary = {
        "stage": "average", "run": str(run), "parts": [part.as_json() for part in parts], "weights": weights,
        "measured": measured.as_json(),
        "better_than": sum(part.measured is not None and measured.quality < part.measured.quality for part in parts),
        "fingerprint": report.fingerprint(partial),
    }  # fmt: skip
    steps = ", ".join(str(part.step) for part in parts)
    provenance = Provenance(
        recipe.name, content["recipe"], recipe.language, recipe.model.start, Path(content["corpus"])
    )
    what = f"average of {len(chosen)} checkpoints (steps {steps}) of stage {content['stages'][-1]['name']}"
    text = model_card(provenance, what, measured.as_json(), report.environment(), recipe.require_train().max_seconds)
    (partial / "README.md").write_text(text, encoding="utf-8")
    report.write_report(partial, average_page(str(run), summary), summary)
    atomic_output.commit_atomic(partial, out)
    candidates = [(measured.quality, out), *((part.measured.quality, part.path) for part in parts if part.measured)]
    best = min(candidates, key=lambda one: one[0])[1]
    checkpoints.point_to_best(run, best)
    summary["best"] = str(best)
    use = "" if best == out else f"; use {best}, which {run / checkpoints.BEST} names"
    return Outcome(f"{average_verdict(summary)}; {what}{use}", run / checkpoints.BEST, summary)
