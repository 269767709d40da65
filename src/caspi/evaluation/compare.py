"""Two evaluations of the same utterances: is one better, and could it be luck?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from caspi.errors import UsageError
from caspi.evaluation.resampling import Interval, permutation_p, ratio_interval, units
from caspi.evaluation.summary import RESULTS
from caspi.folders import read_jsonl
from caspi.pages import plural


@dataclass(frozen=True, slots=True)
class Comparison:
    """difference: WER of A minus WER of B, so that positive means B is better; fractions, 95 % interval, None where all
    utterances are of one group. p: of the sign-flip test. groups: what was drawn and flipped."""

    score: str
    wer_a: float
    wer_b: float
    difference: float
    interval: Interval | None
    p: float
    utterances: int
    groups: int

    @property
    def shown(self) -> bool:
        """Whether test and interval both say that it is no luck."""
        return self.p < 0.05 and self.interval is not None and self.interval[0] * self.interval[1] > 0

    def sentence(self) -> str:
        """What it means, in one line."""
        counted = f"{self.utterances:,} utterances"
        if self.groups < self.utterances:
            counted += f" in {plural(self.groups, 'group')}"
        p = "p < 0.001" if self.p < 0.001 else f"p = {self.p:.3f}"
        if self.difference == 0:
            return f"no difference shown: both {self.wer_a:.3f}, {p}, {counted}"
        better, worse = ("B", "A") if self.difference > 0 else ("A", "B")
        interval = "no interval"
        if self.interval is not None:
            sign = 1 if self.difference > 0 else -1
            low, high = sorted(round(sign * bound, 3) + 0.0 for bound in self.interval)
            interval = f"[{low:.3f}, {high:.3f}]"
        numbers = f"{abs(self.difference):.3f} {interval}, {p}, {counted}"
        if not self.shown:
            return f"no difference shown: {better} is ahead by {numbers}"
        return f"{better} is better than {worse} by {numbers}"


_TEXTS = ("id", "reference", "hypothesis")
_COUNTS = ("errors", "words", "fair_errors", "fair_words")


def read_results(folder: Path) -> dict[str, dict[str, Any]]:
    """results.jsonl by utterance id. Raises UsageError naming file and line."""
    path = folder / RESULTS if folder.is_dir() else folder
    if not path.is_file():
        raise UsageError(f"no {RESULTS} in {folder}: make one with caspi evaluate or caspi score")
    if path.suffix != ".jsonl":
        raise UsageError(f"{path} is no {RESULTS}: score it first with caspi score, and compare what that makes")
    found: dict[str, dict[str, Any]] = {}
    for row in read_jsonl(path):
        _check(row, path)
        if str(row["id"]) in found:
            raise UsageError(f"{path} holds the utterance {row['id']} twice")
        found[str(row["id"])] = row
    if not found:
        raise UsageError(f"{path} holds no result")
    return found


def _check(row: Any, path: Path) -> None:
    """Raises UsageError."""
    if not isinstance(row, dict):
        raise UsageError(f"{path} is not a file of results: a line is {str(row)[:40]}, not an object")
    if missing := [name for name in (*_TEXTS, *_COUNTS) if name not in row]:
        raise UsageError(f"{path} is not a file of results: a line lacks {', '.join(missing)}")
    where = f"{path}, utterance {row['id']}"
    for name in _TEXTS:
        if not isinstance(row[name], str):
            raise UsageError(f"{where}: {name} is {row[name]!r}, not text")
    for name in _COUNTS:
        if type(row[name]) is not int or row[name] < 0:
            raise UsageError(f"{where}: {name} is {row[name]!r}, not a count: evaluate or score it again")


def compare(a: Path, b: Path, *, seed: int = 0) -> dict[str, Comparison]:
    """A paired interval over groups and a sign-flip permutation test, for each score.

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
    apart = units(np.stack([table[:, 0] - table[:, 1], table[:, 2]], axis=1), groups)
    length = max(1.0, total[2])
    return Comparison(
        score=score,
        wer_a=total[0] / length,
        wer_b=total[1] / length,
        difference=(total[0] - total[1]) / length,
        interval=ratio_interval(apart, seed),
        p=permutation_p(apart[:, 0], seed),
        utterances=len(a),
        groups=len(set(groups)),
    )
