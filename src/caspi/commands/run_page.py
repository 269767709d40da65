"""The page of caspi run: what was done and came out; beside the run that it goes on from, if there is one."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from caspi.atomic_output import report_of
from caspi.commands.chain import STEPS, Step, read_state, read_steps
from caspi.commands.train import training_curves
from caspi.errors import UsageError
from caspi.progress import duration
from caspi.recipe import Recipe
from caspi.reporting import report
from caspi.reporting.charts import Chart, Line
from caspi.reporting.wording import SYNTHETIC_NOTE, percent, rate

EVALUATION, START, COMPARISON = "evaluation", "evaluation-start", "compare"  # folders of a run
_NOT_COMPARED = ("corpus.path", "train.path", "name")


def parent_of(recipe: Recipe, folder: Path, named: Path | None) -> Path | None:
    """The run that this one is compared with: the named one; else the one whose model it starts from; else the newest
    other one beside it with the same name. Raises UsageError if the named one is no run."""
    if named is not None:
        if not read_steps(named):
            raise UsageError(f"--parent {named}: there is no run")
        return named
    here = folder.resolve()
    start = Path(recipe.model.start)
    if start.is_dir():
        found = next((one for one in start.resolve().parents if (one / STEPS).is_file()), None)
        if found is not None and found != here:
            return found
    beside = [path.parent for path in here.parent.glob(f"*/{STEPS}") if path.parent != here]
    same = [one for one in beside if (one / EVALUATION).is_dir() and read_state(one).get("name") == recipe.name]
    began = min((step.finished for step in read_steps(folder)), default=math.inf)  # what began later is no parent
    ended = {one: max((step.finished for step in read_steps(one)), default=math.inf) for one in same}
    return max((one for one in same if ended[one] < began), key=lambda one: ended[one], default=None)


def run_page(recipe: Recipe, folder: Path, steps: list[Step], headline: str, parent: Path | None) -> report.Page:
    """What was done and came out, with links to the pages of the steps."""
    from caspi.training.run import METRICS

    facts = [("time", duration(sum(step.seconds for step in steps)))]
    facts += [
        (f"WER {name}", score) for name, where in (("before", START), ("after", EVALUATION))
        if (score := _wer(folder / where))
    ]  # fmt: skip
    if parent is not None and (score := _wer(parent / EVALUATION)):
        facts.append((f"WER of {parent.name}", score))
    trained = report_of(recipe.require_train().path)
    return report.Page(
        title=f"caspi run · {recipe.name}",
        headline=headline,
        facts=facts,
        synthetic=SYNTHETIC_NOTE if trained.get("synthetic") else "",
        parts=[
            *(_beside(recipe, folder, steps, parent) if parent is not None else []),
            _steps_table(folder, steps),
            *training_curves(recipe.require_train().path / METRICS),
        ],
    )


@dataclass(frozen=True, slots=True)
class _Summary:
    """A run in one row. cost: of training as planned, in dollars."""

    name: str
    wer: str
    seconds: float
    cost: float | None
    curve: list[tuple[float, float]]

    @classmethod
    def of(cls, folder: Path, steps: list[Step]) -> _Summary:
        planned: dict[str, Any] = next((step.summary for step in steps if step.name == "plan"), {})
        curves = training_curves(next(iter(sorted(folder.glob("*/metrics.jsonl"))), folder / "none"))
        [validation] = [chart for chart in curves if chart.title == "Validation"]
        seconds = sum(step.seconds for step in steps)
        return cls(
            folder.name, _wer(folder / EVALUATION) or "-", seconds, planned.get("cost"), validation.lines[0].points
        )


def _beside(recipe: Recipe, folder: Path, steps: list[Step], parent: Path) -> list[report.Table | Chart]:
    """This run and its parent: scores, time, cost, curves, and what changed in the recipe."""
    both = [_Summary.of(parent, read_steps(parent)), _Summary.of(folder, steps)]
    compared = report_of(folder / COMPARISON)
    rows = [
        (one.name, one.wer, duration(one.seconds), f"{one.cost:.2f}" if one.cost is not None else "-") for one in both
    ]
    sentence = next((step.result for step in steps if step.name == COMPARISON), "") if compared else ""
    changes = list(_changes(report_of(parent).get("recipe"), recipe))
    columns = ("run", "WER", "time of all steps", "planned cost $")
    return [
        report.Table("Beside the run before", columns, rows, note=sentence),
        report.Table(
            "What changed in the recipe", ("key", parent.name, folder.name), changes,
            note="" if changes else "Nothing but the names of folders.",
        ),
        Chart(
            "Validation WER of both",
            [Line(one.name, one.curve) for one in both if one.curve],
            "step", "%",
        ),
    ]  # fmt: skip


def _changes(before: str | None, recipe: Recipe) -> Iterator[tuple[str, str, str]]:
    """Key, value before, value now."""
    if before is None:
        return
    old, new = (dict(_flat(values)) for values in (yaml.safe_load(before), recipe.model_dump(mode="json")))
    for key in {**old, **new}:
        if old.get(key) != new.get(key) and key not in _NOT_COMPARED:
            yield key, str(old.get(key, "-")), str(new.get(key, "-"))


def _flat(values: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys of all values."""
    if isinstance(values, dict | list) and values:
        pairs = values.items() if isinstance(values, dict) else enumerate(values)
        for name, value in pairs:
            yield from _flat(value, f"{key}.{name}" if key else str(name))
    else:
        yield key, values


def _wer(folder: Path) -> str | None:
    found = report_of(folder).get("leaderboard")
    if not found:
        return None
    interval = found.get("wer_ci")
    return rate(found["wer"], interval) if interval else percent(found["wer"])


def _steps_table(folder: Path, steps: list[Step]) -> report.Table:
    rows = [(step.command, duration(step.seconds), step.result, _relative(folder, step.path)) for step in steps]
    return report.Table("Steps", ("command", "time", "result", "page or folder"), rows)


def _relative(folder: Path, path: str) -> str:
    try:
        return str(Path(path).relative_to(folder))
    except ValueError:
        return path
