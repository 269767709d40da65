"""caspi plan: predicts batches, memory, hours and cost of training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from caspi import recipe as recipes
from caspi.atomic_output import default_output
from caspi.commands.outcome import Outcome
from caspi.progress import duration
from caspi.recipe import Recipe
from caspi.reporting import report
from caspi.reporting.report import Page, Table
from caspi.reporting.wording import hours_or_minutes, plural

if TYPE_CHECKING:
    from collections.abc import Sequence

    from caspi.training.planning.plan import PlanOptions, RunPlan
    from caspi.training.planning.stage_batches import BatchCounts


def plan_page(name: str, made: RunPlan) -> Page:
    """Batches, memory, time and cost of every stage."""
    price = f", about {duration(3600 * made.hours)}" if made.hours is not None else ""
    price += f" and {made.cost:.2f} $" if made.cost is not None else ""
    where = f"{made.gpus} x {made.gpu}" if made.gpu else plural(made.gpus, "rank")
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
            Table(
                "Decoded training targets",
                ("utterance", "target"),
                [(shown.id, shown.target) for shown in made.targets],
                text=(1,),
            ),
        ],
    )


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
        ("stage", "trainable", "peak GiB", "time", "cost $"),
        [
            (
                stage.batches.name, f"{stage.costs.trainable:,}",
                f"{stage.costs.peak_gib:.2f}{' (does not fit)' if stage.costs.fits is False else ''}",
                duration(3600 * stage.costs.hours) if stage.costs.hours is not None else "-",
                f"{stage.costs.cost:.2f}" if stage.costs.cost is not None else "-",
            )
            for stage in made.stages
        ],
        note=f"Speed: {speed}. The time covers training steps only, not evaluation and saving. The allocator "
        "holds 2 to 4 GiB more than the peak.",
    )  # fmt: skip


def run(recipe: Recipe, options: PlanOptions) -> Outcome:
    """Predicts batches and memory; hours if a GPU kind or a pilot is given; the cost if a GPU kind is given."""
    from caspi.training.planning.plan import plan_run

    made = plan_run(recipe.model, recipe.require_train(), recipe.corpus.path, recipe.seed, options)
    summary = {"stage": "plan", "name": recipe.name, **made.as_json()}
    out = default_output(recipe.corpus.path, "plan")
    page = report.write_report(out, plan_page(recipe.name, made), summary, recipes.dump(recipe))
    return Outcome(_plan_line(made), page, summary)


def _plan_line(made: RunPlan) -> str:
    from caspi.training.planning.stage_batches import waste_line

    peak = max(stage.costs.peak_gib for stage in made.stages)
    line = f"{sum(stage.batches.steps for stage in made.stages):,} steps over {plural(len(made.stages), 'stage')}"
    line += f", at most {peak:.1f} GiB" if peak >= 0.05 else f", at most {1024 * peak:.0f} MiB"
    if made.hours is not None:
        where = f"{made.gpus} x {made.gpu}" if made.gpu else "this machine"
        line += f", about {duration(3600 * made.hours)} on {where}"
        line += f", {made.cost:.2f} $" if made.cost is not None else ""
        line += "" if made.measured else " (with the computing speed of the GPU table: --pilot measures it)"
    line += f"; {waste_line([stage.batches for stage in made.stages], made.gpus)}"
    for stage in made.stages:
        if stage.costs.fits is False:
            hint = "; or ".join(stage.costs.changes) or "train fewer groups, or with lora"
            line += f"; stage {stage.batches.name} does not fit: {hint}"
    return line
