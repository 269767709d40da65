"""What evaluations found, as a section of a model card."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePath
from typing import Any

from caspi.errors import UsageError
from caspi.reporting.wording import SYNTHETIC_NOTE, percent, rate

_SECTION = re.compile(r"^## Evaluated\n.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
_NOTE = (
    "Made by `caspi evaluate`, with intervals of 95 % over speakers or recordings. *leaderboard*: the normaliser of "
    "the Hebrew leaderboard; *fair*: spellings of the same word are one (gershayim, maqaf, quotes)."
)


def read_summary(folder: Path) -> dict[str, Any]:
    """Of an evaluation. Raises UsageError."""
    try:
        summary: dict[str, Any] = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        summary["evaluated"], summary["by_source"], summary["by_language"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"--evaluation {folder}: no evaluation: give the folder that caspi evaluate wrote") from error
    return summary


def with_evaluations(card: str, summaries: Sequence[dict[str, Any]]) -> str:
    """The card with a section before the one on use; an earlier one is replaced."""
    section = f"## Evaluated\n{_NOTE}\n\n{_table(summaries)}{_forgotten(summaries)}\n"
    card = _SECTION.sub("", card)
    return card.replace("## Use\n", f"{section}## Use\n", 1) if "## Use\n" in card else f"{card}\n{section}"


def _table(summaries: Sequence[dict[str, Any]]) -> str:
    lines = ["| set | language | utterances | WER, leaderboard | WER, fair | CER |", "|---|---|---|---|---|---|"]
    for summary in summaries:
        sets = ", ".join(_set_name(one) for one in summary["evaluated"])
        by_source = summary["by_source"] if len(summary["by_source"]) > 1 else {sets: {**summary}}
        languages = ", ".join(summary["by_language"])
        lines += [_row(name, languages, found) for name, found in by_source.items()]
    synthetic = any(summary.get("synthetic") for summary in summaries)
    return "\n".join(lines) + "\n" + (f"\n{SYNTHETIC_NOTE}\n" if synthetic else "")


def _set_name(evaluated: dict[str, Any]) -> str:
    """The part of its path that says something to others."""
    return f"{PurePath(str(evaluated['corpus'])).name} ({evaluated['split']})"


def _row(name: str, languages: str, found: dict[str, Any]) -> str:
    leaderboard, fair = found["leaderboard"], found["fair"]
    cells = (
        name, languages, f"{found['utterances']:,}", rate(leaderboard["wer"], leaderboard["wer_ci"]),
        rate(fair["wer"], fair["wer_ci"]), percent(leaderboard["cer"]),
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


def _forgotten(summaries: Iterable[dict[str, Any]]) -> str:
    """Other languages after the training; nothing if none was measured."""
    rows = [
        f"| {language} | {rate(score['wer'], score['wer_ci'])} |"
        for summary in summaries
        for languages in (summary.get("retention") or {}).values()
        for language, score in languages.items()
    ]
    if not rows:
        return "\nWhat the model forgot of other languages was not measured.\n"
    table = "\n".join(["| other language | WER, leaderboard |", "|---|---|", *rows])
    return f"\nWhat is left of the languages that it knew before:\n\n{table}\n"
