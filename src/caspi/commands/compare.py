"""caspi compare: tests whether B is better than A."""

from __future__ import annotations

from pathlib import Path

from caspi import atomic_output
from caspi.commands.evaluate import clips_of
from caspi.commands.outcome import Outcome
from caspi.reporting import report


def run(a: Path, b: Path, out: Path) -> Outcome:
    """Compares two evaluations and writes the report."""
    from caspi.evaluation import compare as stage
    from caspi.evaluation.comparison_page import Changed, ComparisonReport, compare_page

    atomic_output.check_owned(out, "compare")
    both = stage.read_both(a, b)
    compared = ComparisonReport(
        str(a),
        str(b),
        stage.scores(*both, a, b),
        stage.by_part(*both, a, b),
        stage.by_kind(*both, a, b),
        Changed.between(*both),
    )
    evaluation = next((content for content in map(atomic_output.report_of, (a, b)) if "corpora" in content), {})
    clips = clips_of(evaluation, compared.changed.shown)
    summary = {"stage": "compare", **compared.as_json()}
    page = report.write_report(out, compare_page(compared, clips), summary)
    return Outcome(compared.scores["leaderboard"].sentence(), page, summary)
