"""The scores of an evaluation as a table for a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from rich.table import Table

from caspi.evaluation.results import ConditionScore, EvaluationSummary, PartScore, context_label
from caspi.reporting.bidi import shown
from caspi.reporting.wording import percent, plural, rate
from caspi.scoring.error_rates import Score

_LONGEST_NAME = 36  # characters
_BREAKDOWNS = ("source", "duration", "noise", "script", "language")


def score_table(summary: EvaluationSummary) -> Table:
    """Scores, relaxations, breakdowns, stress conditions, context and retention, a section each."""
    table = Table(title=summary.counted(), title_justify="left", expand=False)
    for column in ("", "WER [95 %]", "CER", "words"):
        table.add_column(column, justify="left" if not column else "right", no_wrap=True)
    _add_section(table, {"leaderboard": summary.leaderboard, "fair": summary.fair})
    for name, relaxed in summary.relaxations.items():
        table.add_row(f"fair, {name} ignored", f"{percent(relaxed.wer)}, {percent(relaxed.removed)} less", "", "")
    for section in _sections(summary):
        table.add_section()
        _add_section(table, section)
    return table


_Scores = Mapping[str, Score | PartScore | ConditionScore]


def _sections(summary: EvaluationSummary) -> Iterator[_Scores]:
    for key in _BREAKDOWNS:
        if len(summary.by[key].parts) > 1:
            yield {name: part.leaderboard for name, part in summary.by[key].parts.items()}
    if summary.stress is not None:
        yield summary.stress.conditions
    if summary.context is not None:
        yield {f"context: {context_label(name)}": score for name, score in summary.context.items()}
    for folder, languages in (summary.retention or {}).items():
        yield {f"{spoken}, {Path(folder).name}": score for spoken, score in languages.items()}


def _add_section(table: Table, scores: _Scores) -> None:
    for name, score in scores.items():
        table.add_row(shown(name, _LONGEST_NAME), rate(score.wer, score.wer_ci), rate(score.cer), f"{score.words:,}")


def warning_signs(summary: EvaluationSummary) -> list[str]:
    """Lines on what the word error rate does not show: empty or truncated hypotheses, hallucinations, languages."""
    counts = {
        "empty": summary.leaderboard.empty, "cut off": summary.truncated,
        "decoded again in pieces": summary.retried, "decoded again without loops": summary.guarded,
        **summary.hallucinations,
    }  # fmt: skip
    signs = [f"{name} {count:,}" for name, count in counts.items() if count]
    lines = [f"of {plural(summary.utterances, 'utterance')}: {', '.join(signs)}"] if signs else []
    for spoken, identified in (summary.named or {}).items():
        times = ", ".join(f"{name} {count:,} times" for name, count in identified.items())
        lines.append(f"{spoken} was identified as {times}")
    return lines
