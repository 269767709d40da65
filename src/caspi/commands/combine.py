"""caspi combine: votes word by word over what several systems heard, and scores the result."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from caspi import atomic_output
from caspi.commands.evaluate import EvaluationOutcome, verdict, write_evaluation
from caspi.errors import UsageError
from caspi.reporting import report
from caspi.reporting.wording import percent

if TYPE_CHECKING:
    from caspi.evaluation.compare import Comparison, Results
    from caspi.evaluation.pairs import TranscriptPair


def run(folders: Sequence[Path], out: Path) -> EvaluationOutcome:
    """Combines evaluations of the same utterances. Raises UsageError if there are not two or more such."""
    from caspi.evaluation.compare import read_both, scores
    from caspi.evaluation.summary import ScoredPairs, scored_utterances, summarise, write_results

    if len(folders) < 2:
        raise UsageError("give two evaluations or more, the system that is trusted most first")
    first: Results | None = None
    systems: list[Results] = []
    for folder in folders[1:]:
        first, other = read_both(folders[0], folder)
        systems.append(other)
    assert first is not None
    systems.insert(0, first)
    pairs = [_combined([system[key].pair for system in systems]) for key in first]
    measured = ScoredPairs.of(pairs)
    summary = summarise(measured)
    best = min(range(len(systems)), key=lambda number: _errors(systems[number]))
    voted = {scored.pair.id: scored for scored in scored_utterances(measured)}
    compared = scores(systems[best], voted, folders[best], out)["leaderboard"]
    oracle = _oracle(systems)
    inputs: dict[str, Any] = {
        "systems": [str(folder) for folder in folders], "best_system": str(folders[best]), "oracle_wer": oracle,
        "gain": {"points": compared.difference, "interval": compared.interval, "p": compared.p},
    }  # fmt: skip
    partial = atomic_output.begin_atomic(out, "combine")
    try:
        utterances = write_results(partial, measured, summary)
        write_evaluation(partial, "combine", f"caspi combine · {len(folders)} systems", summary, utterances, inputs)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    atomic_output.commit_atomic(partial, out)
    line = f"{verdict(summary)}; {_gain(compared, folders[best])}; the best transcript of each: {percent(oracle)}"
    return EvaluationOutcome(
        line, out / report.HTML, {"stage": "combine", **inputs, **summary.as_json()}, result=summary
    )


def _combined(heard: Sequence[TranscriptPair]) -> TranscriptPair:
    """The words that most systems heard; all else is that of the first."""
    from caspi.language import language
    from caspi.scoring.voting import NOTHING, combined, heard_words

    key = language(heard[0].language or "Hebrew").normalisers["leaderboard"]
    known = [p for pair in heard for p in pair.probabilities]
    unknown = sum(known) / len(known) if known else NOTHING  # a system without probabilities is as sure as the others
    won = combined([heard_words(pair.hypothesis, pair.probabilities, key, unknown) for pair in heard])
    text = " ".join(word.word for word in won)
    return replace(
        heard[0], hypothesis=text, probabilities=(), named="", named_probability=None, truncated=False, retried=False,
        guarded=False,
    )  # fmt: skip


def _errors(system: Results) -> int:
    return sum(scored.leaderboard.errors for scored in system.values())


def _oracle(systems: Sequence[Results]) -> float:
    """WER of the best of the systems' transcripts of every utterance."""
    first = systems[0]
    errors = sum(min(system[key].leaderboard.errors for system in systems) for key in first)
    return errors / max(1, sum(scored.leaderboard.words for scored in first.values()))


def _gain(compared: Comparison, best: Path) -> str:
    points = f"{100 * compared.difference:+.2f} points"
    interval = compared.interval
    shown = f" [{100 * interval[0]:.2f}, {100 * interval[1]:.2f}]" if interval is not None else ""
    return (
        f"{points}{shown} better than {best}, the best of them"
        if compared.difference > 0
        else (f"no better than {best}, the best of them ({points}{shown})")
    )
