"""caspi score: scores the transcripts of any system in the same way as `evaluate`."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from caspi import atomic_output
from caspi.commands.evaluate import EvaluationOutcome, evaluation_outcome, read_equivalents, write_evaluation
from caspi.commands.outcome import language_option
from caspi.errors import UsageError
from caspi.reporting import report

if TYPE_CHECKING:
    from caspi.evaluation.transcripts import Transcripts
    from caspi.language import Language

_log = logging.getLogger(__name__)


def run(
    file: Path,
    language_name: str | None,
    out: Path,
    equivalents: Path | None = None,
    *,
    hypotheses: Path | None = None,
    columns: Mapping[str, str] | None = None,
) -> EvaluationOutcome:
    """Scores transcripts and writes the report. columns: names of the columns reference, hypothesis, id, group."""
    from caspi.evaluation.summary import ScoredPairs, summarise, write_results
    from caspi.evaluation.transcripts import Columns, read_transcripts
    from caspi.language import language

    spoken = language(language_option(language_name) or "Hebrew")
    found = read_transcripts(file, spoken.name, Columns(**(columns or {})), hypotheses)
    if language_name is None and "language" not in found.used:
        _check_letters(file, found, spoken)
    _report_columns(found)
    table = read_equivalents(equivalents, spoken)
    measured = ScoredPairs.of(found.pairs)
    partial = atomic_output.begin_atomic(out, "score")
    try:
        summary = summarise(measured, equivalents=table)
        utterances = write_results(partial, measured, summary)
        inputs = {"file": str(file), "fingerprint": report.fingerprint(file), "columns": found.used}
        if hypotheses is not None:
            inputs |= {"hypotheses": str(hypotheses), "hypotheses_fingerprint": report.fingerprint(hypotheses)}
        write_evaluation(partial, "score", f"caspi score · {file.name}", summary, utterances, inputs)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    atomic_output.commit_atomic(partial, out)
    return evaluation_outcome(summary, out)


def _check_letters(file: Path, found: Transcripts, spoken: Language) -> None:
    """Raises UsageError if no language is given and the references are not in the script of the default language."""
    if spoken.script_share(" ".join(pair.reference for pair in found.pairs)) < 0.5:
        raise UsageError(
            f"{file} names no language, and most of its letters are not {spoken.name}: give --language, such as "
            "--language Spanish"
        )


def _report_columns(found: Transcripts) -> None:
    """Reports which columns are used, and which are not."""
    other = {name: column for name, column in found.used.items() if name != column}
    if other:
        named = ", ".join(f"{name} from {column}" for name, column in other.items())
        _log.info(f"score: {named}")
    if found.unused:
        _log.info(f"score: not used: {', '.join(found.unused)}")
