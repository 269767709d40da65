"""caspi prepare: sources to a corpus."""

from __future__ import annotations

import logging
from typing import Any

from caspi import recipe as recipes
from caspi.commands.outcome import Outcome
from caspi.corpus.signals import SIGNALS
from caspi.errors import UsageError
from caspi.progress import duration
from caspi.recipe import Recipe
from caspi.reporting import report
from caspi.reporting.report import Page, Table
from caspi.reporting.wording import SYNTHETIC_NOTE, hours_or_minutes, plural

_log = logging.getLogger(__name__)


def prepare_page(name: str, summary: dict[str, Any]) -> Page:
    """Hours kept, what was rejected and why."""
    rejected = sum(summary["rejected"].values())
    return Page(
        title=f"caspi prepare · {name}",
        headline=f"{hours_or_minutes(summary['hours'])} kept in {plural(summary['kept'], 'utterance')}; {rejected:,} "
        f"of {summary['input']:,} rejected",
        facts=[
            ("input", f"{summary['input']:,}"),
            ("kept", f"{summary['kept']:,}"),
            ("rejected", f"{rejected:,}"),
            ("time taken", duration(summary["seconds"])),
        ],
        synthetic=SYNTHETIC_NOTE if summary["synthetic"] else "",
        parts=[
            Table(
                "Splits",
                ("split", "utterances", "hours", "fingerprint"),
                [
                    (s, f"{v['utterances']:,}", f"{v['hours']:.3f}", v["fingerprint"][:16])
                    for s, v in summary["splits"].items()
                ],
            ),
            Table(
                "Sources",
                ("source", "utterances", "groups", "hours", "taken over"),
                [
                    (
                        source,
                        f"{report['utterances'][source]:,}",
                        f"{report['groups'][source]:,}",
                        f"{hours:.3f}",
                        "yes" if number < summary["reused"] else "",
                    )
                    for number, report in enumerate(summary["source_reports"])
                    for source, hours in report["hours"].items()
                ],
                note="Groups are recordings or speakers; a split never divides one.",
            ),
            _rejections(summary),
            Table(
                "Signals of what was kept",
                ("source", *(name.replace("_", " ") for name in SIGNALS)),
                [
                    (source, *(_spread(values[name]) for name in SIGNALS))
                    for report in summary["source_reports"]
                    for source, values in report["signals"].items()
                ],
                note="Median, with the 5th and 95th percentile. All are columns of the corpus.",
            ),
            Table(
                "Text policy",
                ("rule", "setting"),
                [(name.replace("_", " "), value) for name, value in summary["text_policy"].items()],
            ),
        ],
    )


def _rejections(summary: dict[str, Any]) -> Table:
    return Table(
        "Rejected",
        ("reason", "utterances", "for example"),
        [
            (
                reason,
                f"{count:,}",
                "; ".join(f"{e['id']} ({e['detail']})" for e in summary["rejected_examples"][reason][:2]),
            )
            for reason, count in sorted(summary["rejected"].items(), key=lambda item: -item[1])
        ],
        text=(2,),
    )


def _spread(percentiles: list[float]) -> str:
    """`-18.9 (-23.0 to -16.2)`."""
    low, middle, high = (f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}" for value in percentiles)
    return f"{middle} ({low} to {high})"


def run(recipe: Recipe, engine: str = "local") -> Outcome:
    """Sources to corpus."""
    from caspi.corpus.pipeline import prepare as stage
    from caspi.corpus.pipeline.engines import ENGINES

    if engine not in ENGINES:
        raise UsageError(f"--engine {engine}: not one of {', '.join(ENGINES)}")
    config = recipe.corpus
    summary = stage.prepare(config, recipe.language, engine)
    partial = summary.pop("partial")
    summary = {"stage": "prepare", "name": recipe.name, "engine": engine, **summary}
    report.write_report(partial, prepare_page(recipe.name, summary), summary, recipes.dump(recipe))
    stage.finish(partial, config.path)
    rejected = sum(summary["rejected"].values())
    for warning in summary["warnings"]:
        _log.warning(f"{warning}")
    line = f"{plural(summary['kept'], 'utterance')} kept, {rejected:,} rejected, {summary['hours']:.2f} hours"
    return Outcome(line, config.path / report.HTML, summary)
