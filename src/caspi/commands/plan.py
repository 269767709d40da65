"""caspi plan: predicts batches, memory, hours and cost of training, on one kind of machine or on several."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.table import Table as TextTable

from caspi import recipe as recipes
from caspi.atomic_output import default_output
from caspi.audio import Seconds
from caspi.commands.outcome import Outcome
from caspi.errors import UsageError
from caspi.progress import duration
from caspi.recipe import Recipe
from caspi.reporting import report
from caspi.reporting.report import Page, Table
from caspi.reporting.wording import hours_or_minutes, plural

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from caspi.training.planning.plan import Machine, PlanOptions, RunPlan, StageCosts
    from caspi.training.planning.stage_batches import BatchCounts


def plan_page(name: str, plans: Sequence[RunPlan], prices: str) -> Page:
    """Batches, memory, time and cost of every stage on the first machine; all machines beside each other. prices: the
    date of the table's."""
    made = plans[0]
    price = f", about {duration(3600 * made.hours)}" if made.hours is not None else ""
    price += f" and {made.cost:.2f} $" if made.cost is not None else ""
    where = machine_name(made) if made.gpu else plural(made.gpus, "rank")
    batches = [stage.batches for stage in made.stages]
    return Page(
        title=f"caspi plan · {name}",
        headline=f"{sum(counts.steps for counts in batches):,} steps on {where}{price}",
        facts=[
            ("utterances", f"{made.utterances:,}"),
            ("parameters", f"{made.parameters:,}"),
            ("audio", hours_or_minutes(sum(counts.audio_hours for counts in batches))),
        ],
        parts=[
            *([_machines(plans, prices)] if made.gpu else []),
            _batches(batches),
            _resources(made),
            *[
                Table(
                    f"Changes that make stage {stage.batches.name} fit",
                    ("change",),
                    [(change,) for change in stage.costs.changes],
                )
                for stage in made.stages
                if stage.costs.changes
            ],
            *_targets(made),
        ],
    )


def _targets(made: RunPlan) -> list[Table]:
    rows = [(shown.id, shown.target) for shown in made.targets]
    return [Table("Decoded training targets", ("utterance", "target"), rows, text=(1,))] if rows else []


def machine_name(made: RunPlan) -> str:
    """Such as `8 x h100`."""
    return f"{made.gpus} x {made.gpu or 'unknown GPU'}{', sharded' if made.sharded else ''}"


_MACHINE_COLUMNS = ("machine", "fits", "GiB", "time", "cost $", "spot time", "spot $", "interruptions")


def _machine_rows(plans: Sequence[RunPlan]) -> list[tuple[str, ...]]:
    return [
        (
            machine_name(made),
            "yes" if made.fits else "no",
            f"{max(stage.costs.peak_gib for stage in made.stages):.1f}",
            duration(3600 * made.hours) if made.hours is not None else "-",
            f"{made.cost:.2f}" if made.cost is not None else "-",
            *(
                (duration(3600 * spot.hours), f"{spot.cost:.2f}", f"{spot.interruptions:.1f}")
                if (spot := made.spot)
                else ("-", "-", "-")
            ),
        )
        for made in plans
    ]


def _machines(plans: Sequence[RunPlan], prices: str) -> Table:
    return Table(
        "Machines", _MACHINE_COLUMNS, _machine_rows(plans),
        note=f"Prices are those of the GPU table{f', {prices}' if prices else ''}: orders of magnitude, no offers "
        "(--gpu-table has your own). On spot machines the time includes what is repeated and waited for after the "
        "expected interruptions.",
    )  # fmt: skip


def _batches(stages: Sequence[BatchCounts]) -> Table:
    return Table(
        "Batches",
        ("stage", "mix", "epochs", "steps", "effective batch", "micro-batches per step", "imbalance", "filled"),
        [
            (
                counts.name, counts.mix or "all", f"{counts.epochs:g}", f"{counts.steps:,}",
                counts.effective_batch, f"{counts.micro_batches_per_step:.1f}",
                f"{100 * counts.imbalance:.1f} %", f"{100 * counts.filled:.0f} %",
            )
            for counts in stages
        ],
        note="imbalance: share of the ranks' time spent waiting for the slowest; filled: used share of "
        "max_batch_seconds.",
    )  # fmt: skip


def _resources(made: RunPlan) -> Table:
    speed = "a pilot on this machine" if made.measured else "the GPU table"
    return Table(
        "Resources",
        ("stage", "trainable", "peak GiB", "time", "steps", "start", "evaluations", "saving", "decoding", "cost $"),
        [
            (
                stage.batches.name, f"{stage.costs.trainable:,}",
                f"{stage.costs.peak_gib:.2f}{' (does not fit)' if stage.costs.fits is False else ''}",
                duration(3600 * stage.costs.hours) if stage.costs.hours is not None else "-",
                *_parts(stage.costs),
                f"{stage.costs.cost:.2f}" if stage.costs.cost is not None else "-",
            )
            for stage in made.stages
        ],
        note=f"Speed: {speed}. Where no GPU kind is given, the time is of the steps alone. Decoding: of the hypotheses "
        "of the sequence objective. The allocator holds 2 to 4 GiB more than the peak.",
    )  # fmt: skip


def _parts(costs: StageCosts) -> tuple[str, ...]:
    """Of a stage's time: steps, start, evaluations, saving, decoding."""
    if costs.beside is None or costs.hours is None:
        return ("-",) * 5
    beside = costs.beside
    return (
        duration(3600 * costs.hours - beside.total),
        duration(beside.starting),
        f"{duration(beside.evaluating)} ({beside.evaluations})",
        f"{duration(beside.saving)} ({beside.checkpoints})",
        duration(beside.decoding) if beside.decoding else "-",
    )


def options(
    kinds: Sequence[str],
    count: int,
    hours: Sequence[str],
    mean_seconds: Seconds,
    pilot: bool,
    table: Path | None,
    sharded: bool,
) -> PlanOptions:
    """The options of the command line: kinds such as `8xh100` or `h100`, hours such as `300` or `NAME=300`. Raises
    UsageError."""
    from caspi.training.planning.assumed import AssumedCorpus
    from caspi.training.planning.plan import Machine, PlanOptions

    machines = tuple(machine(kind, count) for kind in kinds) or (Machine(None, count),)
    assumed = AssumedCorpus(dict(_hours(one) for one in hours), mean_seconds) if hours else None
    return PlanOptions(machines, pilot, table, assumed, sharded)


def machine(kind: str, count: int) -> Machine:
    """A kind with its number of GPUs, `8xh100`, or without, where `count` is meant. Raises UsageError."""
    from caspi.training.planning.plan import Machine

    number, times, name = kind.replace(" ", "").partition("x")
    if times and number.isdigit() and name:
        if int(number) < 1:
            raise UsageError(f"--gpu {kind}: at least one GPU is needed")
        return Machine(name, int(number))
    return Machine(kind, count)


def _hours(given: str) -> tuple[str, float]:
    name, equals, number = given.rpartition("=")
    try:
        hours = float(number)
    except ValueError:
        hours = 0.0
    if not 0 < hours < 1e6 or (equals and not name):
        raise UsageError(f"--hours {given}: give hours, such as 300, or those of a source, such as crowd=300")
    return name, hours


def run(recipe: Recipe, options: PlanOptions) -> Outcome:
    """Predicts batches and memory; hours if a GPU kind or a pilot is given; the cost if a GPU kind is given."""
    from caspi.training.planning.estimates import prices_date
    from caspi.training.planning.plan import plan_run

    plans = plan_run(recipe.model, recipe.require_train(), recipe.corpus.path, recipe.seed, options)
    prices = prices_date(options.table)
    summary = {"stage": "plan", "name": recipe.name, **plans[0].as_json(), "prices": prices}
    summary["machines"] = [
        {"gpu": made.gpu, "gpus": made.gpus, "hours": made.hours, "cost": made.cost, "fits": made.fits,
         "spot": asdict(made.spot) if made.spot else None}
        for made in plans
    ]  # fmt: skip
    out = default_output(recipe.corpus.path, "plan")
    page = report.write_report(out, plan_page(recipe.name, plans, prices), summary, recipes.dump(recipe))
    tables = (_machines_text(plans),) if len(plans) > 1 else ()
    return Outcome(plan_line(plans[0], prices), page, summary, tables=tables)


def _machines_text(plans: Sequence[RunPlan]) -> TextTable:
    table = TextTable(box=None, pad_edge=False)
    for column in _MACHINE_COLUMNS:
        table.add_column(column, no_wrap=True)
    for row in _machine_rows(plans):
        table.add_row(*row)
    return table


def plan_line(made: RunPlan, prices: str) -> str:
    """A plan in one line. prices: their date."""
    from caspi.training.planning.stage_batches import waste_line

    peak = max(stage.costs.peak_gib for stage in made.stages)
    line = f"{sum(stage.batches.steps for stage in made.stages):,} steps over {plural(len(made.stages), 'stage')}"
    line += f", at most {peak:.1f} GiB" if peak >= 0.05 else f", at most {1024 * peak:.0f} MiB"
    if made.hours is not None:
        where = f"{made.gpus} x {made.gpu}" if made.gpu else "this machine"
        line += f", about {duration(3600 * made.hours)} on {where}"
        line += f", {made.cost:.2f} $" if made.cost is not None else ""
        line += f" (spot: {duration(3600 * made.spot.hours)}, {made.spot.cost:.2f} $)" if made.spot else ""
        line += f", prices of {prices}" if made.cost is not None and prices else ""
        line += "" if made.measured else " (with the computing speed of the GPU table: --pilot measures it)"
    line += f"; {waste_line([stage.batches for stage in made.stages], made.gpus)}"
    line += "; lengths are assumed, there is no corpus" if made.assumed else ""
    for stage in made.stages:
        if stage.costs.fits is False:
            hint = "; or ".join(stage.costs.changes) or "train fewer groups, or with lora"
            line += f"; stage {stage.batches.name} does not fit: {hint}"
    return line
