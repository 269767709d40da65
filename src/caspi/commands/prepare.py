"""caspi prepare: makes a corpus from sources."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from caspi import recipe as recipes
from caspi.commands.outcome import Outcome
from caspi.corpus.signals import SIGNALS
from caspi.errors import UsageError
from caspi.progress import duration
from caspi.recipe import Recipe
from caspi.reporting import report
from caspi.reporting.report import Page, Table
from caspi.reporting.wording import SYNTHETIC_NOTE, hours_or_minutes, plural

if TYPE_CHECKING:
    from caspi.corpus.pipeline.segmentation import Segmentation, WordTimer
    from caspi.corpus.pipeline.source_report import CorpusReport, Totals

_log = logging.getLogger(__name__)


def prepare_page(name: str, made: CorpusReport) -> Page:
    """The hours kept, what was rejected and why."""
    totals = made.totals
    rejected = sum(totals.rejected.values())
    return Page(
        title=f"caspi prepare · {name}",
        headline=f"{hours_or_minutes(totals.hours)} kept in {plural(totals.kept, 'utterance')}; {rejected:,} "
        f"of {totals.input:,} rejected",
        facts=[
            ("input", f"{totals.input:,}"),
            ("kept", f"{totals.kept:,}"),
            ("rejected", f"{rejected:,}"),
            ("time taken", duration(made.seconds)),
        ],
        synthetic=SYNTHETIC_NOTE if totals.synthetic else "",
        parts=[
            Table(
                "Splits",
                ("split", "utterances", "hours", "fingerprint"),
                [
                    (name, f"{split.utterances:,}", f"{split.hours:.3f}", split.fingerprint[:16])
                    for name, split in totals.splits.items()
                ],
            ),
            Table(
                "Sources",
                ("source", "utterances", "groups", "hours", "reused"),
                [
                    (
                        source,
                        f"{source_report.utterances[source]:,}",
                        f"{source_report.groups[source]:,}",
                        f"{hours:.3f}",
                        "yes" if number < made.reused else "",
                    )
                    for number, source_report in enumerate(made.source_reports)
                    for source, hours in source_report.hours.items()
                ],
                note="Groups are recordings or speakers; a split never divides one.",
            ),
            _rejections(totals),
            Table(
                "Signal measures of the utterances kept",
                ("source", *(name.replace("_", " ") for name in SIGNALS)),
                [
                    (source, *(_spread(values[name]) for name in SIGNALS))
                    for source_report in made.source_reports
                    for source, values in source_report.signals.items()
                ],
                note="Median, with the 5th and 95th percentile. All are columns of the corpus.",
            ),
            Table(
                "Text policy",
                ("rule", "setting"),
                [(name.replace("_", " "), value) for name, value in made.text_policy.items()],
            ),
        ],
    )


def _rejections(totals: Totals) -> Table:
    return Table(
        "Rejected",
        ("reason", "utterances", "examples"),
        [
            (
                reason,
                f"{count:,}",
                "; ".join(f"{e['id']} ({e['detail']})" for e in totals.rejected_examples[reason][:2]),
            )
            for reason, count in sorted(totals.rejected.items(), key=lambda item: -item[1])
        ],
        text=(2,),
    )


def _spread(percentiles: list[float]) -> str:
    """`-18.9 (-23.0 to -16.2)`."""
    low, middle, high = (f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}" for value in percentiles)
    return f"{middle} ({low} to {high})"


def _timer(segmentation: Segmentation) -> WordTimer | None:
    if segmentation.align is None:
        return None
    from caspi.alignment.recordings import RecordingAligner

    return RecordingAligner.of(segmentation)


def run(recipe: Recipe, engine: str = "local") -> Outcome:
    """Makes the corpus and writes the report."""
    from caspi.corpus.pipeline import prepare as stage
    from caspi.corpus.pipeline.engines import ENGINES

    if engine not in ENGINES:
        raise UsageError(f"--engine {engine}: not one of {', '.join(ENGINES)}")
    config = recipe.corpus
    made, partial = stage.prepare(config, recipe.language, engine, _timer(config.segmentation))
    summary = {"stage": "prepare", "name": recipe.name, "engine": engine, **made.as_json()}
    report.write_report(partial, prepare_page(recipe.name, made), summary, recipes.dump(recipe))
    stage.finish(partial, config.path)
    for warning in made.totals.warnings:
        _log.warning(warning)
    rejected = sum(made.totals.rejected.values())
    line = f"{plural(made.totals.kept, 'utterance')} kept, {rejected:,} rejected, {made.totals.hours:.2f} hours"
    return Outcome(line, config.path / report.HTML, summary)
