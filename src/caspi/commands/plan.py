"""caspi plan: batches, memory, hours and cost before they are spent."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from caspi import recipe as recipes
from caspi.commands.outcome import Outcome
from caspi.errors import UsageError
from caspi.progress import duration
from caspi.recipe import Recipe
from caspi.reporting import report
from caspi.reporting.report import Page, Table
from caspi.reporting.wording import hours_or_minutes, plural

if TYPE_CHECKING:
    pass


def plan_page(name: str, summary: dict[str, Any]) -> Page:
    """Batches, memory and price of every stage."""
    stages = summary["stages"]
    timed, priced = "hours" in stages[0], "cost" in stages[0]
    price = f", about {duration(3600 * sum(s['hours'] for s in stages))}" if timed else ""
    price += f" and {sum(s['cost'] for s in stages):.2f} $" if priced else ""
    where = f"{summary['gpus']} x {summary['gpu']}" if priced else plural(summary["gpus"], "rank")
    speed = "a pilot on this machine" if summary["measured"] else "the GPU table"
    return Page(
        title=f"caspi plan · {name}",
        headline=f"{sum(s['steps'] for s in stages):,} steps on {where}{price}",
        facts=[
            ("utterances", f"{summary['utterances']:,}"),
            ("parameters", f"{summary['parameters']:,}"),
            ("audio", hours_or_minutes(sum(s["audio_hours"] for s in stages))),
        ],
        parts=[
            Table(
                "Batches",
                ("stage", "mix", "epochs", "steps", "effective batch", "micro-batches a step", "imbalance", "filled"),
                [
                    (
                        s["name"], s["mix"] or "all", f"{s['epochs']:g}", f"{s['steps']:,}", s["effective_batch"],
                        f"{s['micro_batches_per_step']:.1f}", f"{s['imbalance']:.1%}", f"{s['filled']:.0%}",
                    )
                    for s in stages
                ],
                note="imbalance: share of the ranks' time spent waiting for the slowest; filled: used share of "
                "max_batch_seconds.",
            ),
            Table(
                "What it takes",
                ("stage", "trainable", "peak GiB", "time", "cost $"),
                [
                    (
                        s["name"], f"{s['trainable']:,}",
                        f"{s['peak_gib']:.2f}{'' if s.get('fits', True) else ' DOES NOT FIT'}",
                        duration(3600 * s["hours"]) if timed else "-", f"{s['cost']:.2f}" if priced else "-",
                    )
                    for s in stages
                ],
                note=f"Speed: {speed}. The time covers training steps only, not evaluation and saving. The allocator "
                "holds 2 to 4 GiB more than the peak.",
            ),
            *[
                Table(f"What would fit stage {s['name']}", ("change",), [(change,) for change in s["changes"]])
                for s in stages
                if s.get("changes")
            ],
            Table(
                "What is trained on, decoded",
                ("utterance", "target"),
                [(t["id"], t["target"]) for t in summary["targets"]],
                text=(1,),
            ),
        ],
    )  # fmt: skip


def run(recipe: Recipe, gpu: str | None, count: int, *, measured: bool = False, table: Path | None = None) -> Outcome:
    """Batches and memory; with a GPU kind, or measured on this machine, hours too; with a kind their cost."""
    from caspi.corpus.store import Corpus
    from caspi.model.loading import load_processor
    from caspi.model.prompt import Prompt
    from caspi.training.data.dataset import TrainingSet
    from caspi.training.planning import estimates, preflight
    from caspi.training.planning.pilot import Pilot
    from caspi.training.planning.shapes import shapes

    config = recipe.require_train()
    known = estimates.gpus(table)
    if gpu is not None and gpu not in known:
        raise UsageError(f"--gpu {gpu}: not one of {', '.join(known)} (--gpu-table adds your own: {estimates.TABLE})")
    shape, stages = shapes(recipe.model, config)
    prompt = Prompt(load_processor(recipe.model.start, recipe.model.revision).tokenizer)
    data = TrainingSet.to_train_on(Corpus.open(recipe.corpus.path, "train"), prompt, config, recipe.seed)
    plans = preflight.planned(data, config, count, recipe.seed)
    pilots: Sequence[Pilot | None] = [None] * len(plans)
    if measured:
        pilots = preflight.pilots(recipe.model, config, data, plans, shape, recipe.seed)
    rows = [
        preflight.counts(data, stage, plan, count)
        | preflight.costs(shape, planned.learning, plan.loads, config, known.get(gpu or ""), count, pilot)
        for stage, planned, plan, pilot in zip(config.stages, stages, plans, pilots, strict=True)
    ]
    summary = {
        "stage": "plan", "name": recipe.name, "gpu": gpu, "gpus": count, "measured": measured, "stages": rows,
        "parameters": shape.parameters, "groups": shape.groups,
        "utterances": len(data.rows), "targets": preflight.decoded_targets(data, prompt, plans[0].plans[0].lengths),
    }  # fmt: skip
    page = report.write_report(
        recipe.corpus.path.with_name(recipe.corpus.path.name + "-plan"),
        plan_page(recipe.name, summary),
        summary,
        recipes.dump(recipe),
    )
    return Outcome(_plan_line(summary), page, summary)


def _plan_line(summary: dict[str, Any]) -> str:
    from caspi.training.planning import preflight

    stages = summary["stages"]
    peak = max(stage["peak_gib"] for stage in stages)
    line = f"{sum(stage['steps'] for stage in stages):,} steps over {plural(len(stages), 'stage')}"
    line += f", at most {peak:.1f} GiB" if peak >= 0.05 else f", at most {1024 * peak:.0f} MiB"
    if "hours" in stages[0]:
        where = f"{summary['gpus']} x {summary['gpu']}" if summary["gpu"] else "this machine"
        line += f", about {duration(3600 * sum(stage['hours'] for stage in stages))} on {where}"
        line += f", {sum(stage['cost'] for stage in stages):.2f} $" if summary["gpu"] else ""
        line += "" if summary["measured"] else " (with the computing speed of the GPU table: --pilot measures it)"
    line += f"; {preflight.waste_line(stages)}"
    for stage in stages:
        if not stage.get("fits", True):
            hint = "; or ".join(stage["changes"]) or "train fewer groups, or with lora"
            line += f"; stage {stage['name']} DOES NOT FIT: {hint}"
    return line
