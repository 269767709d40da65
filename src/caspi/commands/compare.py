"""caspi compare: is B better than A, and could it be chance?"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from caspi import atomic_output
from caspi.commands.evaluate import clips_of
from caspi.commands.outcome import Outcome
from caspi.reporting import report


def run(a: Path, b: Path, out: Path) -> Outcome:
    """Whether B is better than A, and whether that could be chance."""
    from caspi.evaluation import compare as stage
    from caspi.evaluation.comparison_page import Changed, compare_page

    atomic_output.check_owned(out, "compare")
    rows = stage.read_both(a, b)
    scores = stage.scores(*rows, a, b)
    changed = Changed.between(*rows)
    named = next((content for content in map(atomic_output.report_of, (a, b)) if "corpora" in content), {})
    clips = clips_of(named, changed.shown)
    summary = {
        "stage": "compare",
        "a": str(a),
        "b": str(b),
        **{name: asdict(score) | {"sentence": score.sentence()} for name, score in scores.items()},
        "by": stage.by_part(*rows, a, b),
        "kinds": stage.by_kind(*rows, a, b),
        "differ": len(changed.all),
        "better": len(changed.better),
        "worse": len(changed.worse),
    }
    page = report.write_report(out, compare_page(summary, changed, clips), summary)
    return Outcome(scores["leaderboard"].sentence(), page, summary)
