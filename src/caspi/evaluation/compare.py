"""Two evaluations of the same utterances: is one better, and could it be luck?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from caspi.errors import UsageError
from caspi.evaluation.resampling import permutation_p, resample, units
from caspi.evaluation.summary import RESULTS
from caspi.folders import read_jsonl


@dataclass(frozen=True, slots=True)
class Comparison:
    """difference: WER of A minus WER of B, so that positive means B is better; fractions, 95 % interval."""

    score: str
    wer_a: float
    wer_b: float
    difference: float
    interval: tuple[float, float]
    p: float
    utterances: int

    def sentence(self) -> str:
        """What it means, in one line."""
        if self.difference == 0:
            return f"no difference shown: both {self.wer_a:.3f}, p = {self.p:.3f}, {self.utterances:,} utterances"
        low, high = (round(bound, 3) + 0.0 for bound in self.interval)
        p = "p < 0.001" if self.p < 0.001 else f"p = {self.p:.3f}"
        if self.difference < 0:
            better, worse, low, high = "A", "B", 0.0 - high, 0.0 - low
        else:
            better, worse = "B", "A"
        numbers = f"{abs(self.difference):.3f} [{low:.3f}, {high:.3f}], {p}, {self.utterances:,} utterances"
        if self.p >= 0.05:
            return f"no difference shown: {better} is ahead by {numbers}"
        return f"{better} is better than {worse} by {numbers}"


def read_results(folder: Path) -> dict[str, dict[str, Any]]:
    """results.jsonl by utterance id. Raises UsageError naming file and line."""
    path = folder / RESULTS if folder.is_dir() else folder
    if not path.is_file():
        raise UsageError(f"no {RESULTS} in {folder}: make one with caspi evaluate")
    found: dict[str, dict[str, Any]] = {}
    for row in read_jsonl(path):
        if not isinstance(row, dict) or not {"id", "reference", "errors"} <= row.keys():
            raise UsageError(f"{path} is not a file of results: a line lacks id, reference or errors")
        if str(row["id"]) in found:
            raise UsageError(f"{path} holds the utterance {row['id']} twice")
        found[str(row["id"])] = row
    if not found:
        raise UsageError(f"{path} holds no result")
    return found


def compare(a: Path, b: Path, *, seed: int = 0) -> dict[str, Comparison]:
    """Paired bootstrap over groups and a sign-flip permutation test, for each score.

    Raises UsageError where the two do not hold the same utterances with the same references.
    """
    rows_a, rows_b = read_results(a), read_results(b)
    if rows_a.keys() != rows_b.keys():
        only = sorted(rows_a.keys() ^ rows_b.keys())
        raise UsageError(f"{a} and {b} hold different utterances, {len(only)} of them, such as {only[0]}")
    for key, row in rows_a.items():
        if row["reference"] != rows_b[key]["reference"]:
            raise UsageError(f"{a} and {b} have different references for {key}")
    keys = list(rows_a)
    groups = [str(rows_a[key].get("group") or key) for key in keys]
    return {
        score: _compare(score, prefix, [rows_a[k] for k in keys], [rows_b[k] for k in keys], groups, seed)
        for score, prefix in (("leaderboard", ""), ("fair", "fair_"))
    }


def _compare(
    score: str, prefix: str, a: list[dict[str, Any]], b: list[dict[str, Any]], groups: list[str], seed: int
) -> Comparison:
    errors, words = f"{prefix}errors", f"{prefix}words"
    table = np.array([[x[errors], y[errors], x[words]] for x, y in zip(a, b, strict=True)], dtype=float)
    total = table.sum(axis=0)
    drawn_from = units(table, groups)
    drawn = resample(drawn_from, seed)
    differences = (drawn[:, 0] - drawn[:, 1]) / np.maximum(1, drawn[:, 2])
    low, high = np.percentile(differences, [2.5, 97.5])
    length = max(1.0, total[2])
    return Comparison(
        score=score,
        wer_a=total[0] / length,
        wer_b=total[1] / length,
        difference=(total[0] - total[1]) / length,
        interval=(float(low), float(high)),
        p=permutation_p(drawn_from[:, 0] - drawn_from[:, 1], seed),
        utterances=len(a),
    )
