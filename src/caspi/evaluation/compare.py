"""Compares two evaluations of the same utterances: is one better, and could the difference be chance?"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from caspi.atomic_output import read_jsonl
from caspi.errors import UsageError
from caspi.evaluation.breakdowns import duration_class
from caspi.evaluation.error_types import ErrorTypes
from caspi.evaluation.summary import RESULTS, SUMMARY
from caspi.language import language
from caspi.reporting.wording import FEW, percent, plural
from caspi.scoring.edits import align
from caspi.scoring.intervals import Interval, matched_pairs, paired

_Row = Mapping[str, Any]
_Rows = Mapping[str, _Row]
_SCORES = (("leaderboard", ""), ("fair", "fair_"))


@dataclass(frozen=True, slots=True)
class Comparison:
    """difference: WER of A minus WER of B, so that positive means B is better. Fractions; the interval is 95 %, and
    None if all utterances are in one group. p: of the same test, below 0.05 if the interval excludes 0. matched_pairs:
    p of NIST's test over segments (intervals.matched_pairs). groups: number of groups with correlated errors."""

    score: str
    wer_a: float
    wer_b: float
    difference: float
    interval: Interval | None
    p: float
    matched_pairs: float
    utterances: int
    groups: int
    identical: bool

    @property
    def shown(self) -> bool:
        """Whether the difference is statistically significant."""
        return self.interval is not None and self.interval[0] * self.interval[1] > 0

    def sentence(self) -> str:
        """The result in one sentence."""
        counted = f"{self.utterances:,} utterances"
        if self.groups < self.utterances:
            counted += f" in {plural(self.groups, 'group')}"
        if 1 < self.groups < FEW:
            counted += ", so its interval is rough"
        if self.identical:
            return f"A and B have the same texts: both {percent(self.wer_a)}, {counted}"
        p = "p < 0.001" if self.p < 0.001 else f"p = {self.p:.3f}"
        if self.difference == 0:
            return f"no difference shown: both {percent(self.wer_a)}, {p}, {counted}"
        better, worse = ("B", "A") if self.difference > 0 else ("A", "B")
        interval = "(no interval)"
        if self.interval is not None:
            sign = 1 if self.difference > 0 else -1
            low, high = sorted(round(100 * sign * bound, 2) + 0.0 for bound in self.interval)
            interval = f"[{low:.2f}, {high:.2f}]"
        numbers = f"{100 * abs(self.difference):.2f} points {interval}, {p}, {counted}"
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
        raise UsageError(f"{path} is not a {RESULTS} file: score it first with caspi score and compare the result")
    found: dict[str, dict[str, Any]] = {}
    for row in read_jsonl(path):
        _check(row, path)
        if str(row["id"]) in found:
            raise UsageError(f"{path} contains the utterance {row['id']} twice")
        found[str(row["id"])] = row
    if not found:
        raise UsageError(f"{path} contains no results")
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


def read_both(a: Path, b: Path) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """Results of A and of B by the ids of A. If the ids differ, utterances are matched by their references, provided
    that these are the same in the same order, or that each occurs once in both.

    Raises UsageError if the two do not have the same utterances, or were not scored by the same rules.
    """
    rows_a, rows_b = read_results(a), read_results(b)
    if rows_a.keys() != rows_b.keys():
        rows_b = _by_reference(rows_a, rows_b, a, b)
    for key, row in rows_a.items():
        other = rows_b[key]
        if row["reference"] != other["reference"]:
            raise UsageError(f"{a} and {b} have different references for {key}")
        if (spoken := row.get("language")) and other.get("language") and spoken != other["language"]:
            raise UsageError(
                f"{a} is scored by the rules of {spoken}, {b} by those of {other['language']} ({key}): "
                "score both again with the same --language"
            )
    versions = {_version(folder) for folder in (a, b)} - {None}
    if len(versions) > 1:
        raise UsageError(
            f"{a} and {b} were scored by different versions of the fair rules: evaluate or score both again"
        )
    for key, row in rows_a.items():
        if any(row[f"{prefix}words"] != rows_b[key][f"{prefix}words"] for _, prefix in _SCORES):
            raise UsageError(
                f"{a} and {b} count different numbers of words in {key}: they were scored by different rules; "
                "evaluate or score both again"
            )
    return rows_a, rows_b


def _version(folder: Path) -> object:
    summary = (folder if folder.is_dir() else folder.parent) / SUMMARY
    return json.loads(summary.read_text("utf-8")).get("fair_version") if summary.is_file() else None


def _by_reference(
    rows_a: dict[str, dict[str, Any]], rows_b: dict[str, dict[str, Any]], a: Path, b: Path
) -> dict[str, dict[str, Any]]:
    """Rows of B under the ids of A."""
    references_a = [row["reference"] for row in rows_a.values()]
    references_b = [row["reference"] for row in rows_b.values()]
    if references_a == references_b:
        return dict(zip(rows_a, rows_b.values(), strict=True))
    if sorted(references_a) == sorted(references_b) and len(set(references_a)) == len(references_a):
        by_text = dict(zip(references_b, rows_b.values(), strict=True))
        return {key: by_text[row["reference"]] for key, row in rows_a.items()}
    only = sorted(rows_a.keys() ^ rows_b.keys())
    raise UsageError(f"{a} and {b} have different utterances, {len(only)} of them in only one, such as {only[0]}")


def compare(a: Path, b: Path) -> dict[str, Comparison]:
    """A paired interval and test over groups, for each score. Swapping A and B changes only the signs.

    Raises UsageError as `read_both` does, and if the two assign utterances to different groups.
    """
    return scores(*read_both(a, b), a, b)


def scores(rows_a: _Rows, rows_b: _Rows, a: Path, b: Path) -> dict[str, Comparison]:
    """`compare` for rows that were already read from a and b."""
    groups = _groups(rows_a, rows_b, a, b)
    return {score: _compare(score, prefix, rows_a, rows_b, groups) for score, prefix in _SCORES}


_PARTS: dict[str, Callable[[_Row], str]] = {
    "source": lambda row: str(row.get("source") or ""),
    "duration": lambda row: duration_class(row.get("seconds")) or "",
    "speaker or recording": lambda row: str(row.get("group") or ""),
}
_PARTS_AT_MOST = 30


def by_part(rows_a: _Rows, rows_b: _Rows, a: Path, b: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """The leaderboard comparison for every source, duration class and group, if there are several; limited to those
    with the most words. a, b: the folders the rows were read from, for messages."""
    groups = dict(zip(rows_a, _groups(rows_a, rows_b, a, b), strict=True))
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for what, part_of in _PARTS.items():
        parts: defaultdict[str, list[str]] = defaultdict(list)
        for key, row in rows_a.items():
            parts[part_of(row) or part_of(rows_b[key])].append(key)
        if len(parts) < 2 or (len(parts) == len(rows_a) and what != "source"):
            continue
        largest = sorted(parts, key=lambda name: -sum(rows_a[key]["words"] for key in parts[name]))[:_PARTS_AT_MOST]
        found[what] = {
            name or "not named": asdict(
                _compare(
                    "leaderboard", "", {key: rows_a[key] for key in parts[name]},
                    {key: rows_b[key] for key in parts[name]}, [groups[key] for key in parts[name]],
                )
            )
            for name in sorted(largest)
        }  # fmt: skip
    return found


def by_kind(rows_a: _Rows, rows_b: _Rows, a: Path, b: Path) -> dict[str, dict[str, Any]]:
    """Errors of every kind (error_types) in A and in B under the fair score, and the difference per reference word.
    a, b: the folders the rows were read from, for messages."""
    groups = _groups(rows_a, rows_b, a, b)
    words = [row["fair_words"] for row in rows_a.values()]
    in_a, in_b = ([_kinds(row, rows_a[key]) for key, row in rows.items()] for rows in (rows_a, rows_b))
    found = {}
    for kind in sorted(set().union(*in_a, *in_b)):
        errors_a, errors_b = ([counts[kind] for counts in side] for side in (in_a, in_b))
        apart = [one - other for one, other in zip(errors_a, errors_b, strict=True)]
        interval, p = paired(apart, words, groups)
        found[kind] = {
            "a": sum(errors_a), "b": sum(errors_b), "difference": sum(apart) / max(1, sum(words)), "interval": interval,
            "p": p,
        }  # fmt: skip
    return found


def _kinds(row: _Row, named: _Row) -> Counter[str]:
    """named: the row that has the language."""
    spoken = language(str(named.get("language") or "Hebrew"))
    found = ErrorTypes()
    fair = spoken.normalisers["fair"]
    found.add(fair(row["reference"]).split(), fair(row["hypothesis"]).split(), spoken)
    return +found.kinds


def _groups(rows_a: _Rows, rows_b: _Rows, a: Path, b: Path) -> list[tuple[str, str]]:
    """The group of every utterance, from the side that has it."""
    names: dict[str, str] = {}
    backwards: dict[str, str] = {}
    found = []
    for key, row in rows_a.items():
        ours, theirs = (str(side.get("group") or "") for side in (row, rows_b[key]))
        if ours and theirs and (names.setdefault(ours, theirs), backwards.setdefault(theirs, ours)) != (theirs, ours):
            raise UsageError(
                f"{a} and {b} put {key} into different groups, {ours} and {theirs}: score both with the same speakers"
            )
        source = " / ".join(sorted({str(side.get("source") or "") for side in (row, rows_b[key])} - {""}))
        found.append((source, ours or theirs) if ours or theirs else ("", key))
    same_name = {theirs: ours for ours, theirs in names.items()}
    return [(source, same_name.get(group, group)) for source, group in found]


def _compare(score: str, prefix: str, a: _Rows, b: _Rows, groups: list[tuple[str, str]]) -> Comparison:
    errors_a, errors_b = ([row[f"{prefix}errors"] for row in rows] for rows in (a.values(), b.values()))
    words = [row[f"{prefix}words"] for row in a.values()]
    apart = [one - other for one, other in zip(errors_a, errors_b, strict=True)]
    interval, p = paired(apart, words, groups)
    length = max(1, sum(words))
    return Comparison(
        score=score,
        wer_a=sum(errors_a) / length,
        wer_b=sum(errors_b) / length,
        difference=sum(apart) / length,
        interval=interval,
        p=p,
        matched_pairs=matched_pairs(_segments(a, b, score)),
        utterances=len(apart),
        groups=len(set(groups)),
        identical=all(row["hypothesis"] == b[key]["hypothesis"] for key, row in a.items()),
    )


def _segments(a: _Rows, b: _Rows, score: str) -> list[int]:
    """Errors of A minus errors of B in every segment with errors. A segment ends where both have two words right."""
    found = []
    for key, row in a.items():
        normalise = language(str(row.get("language") or "Hebrew")).normalisers[score]
        expected = normalise(row["reference"]).split()
        ours, theirs = (_errors_at(expected, normalise(side[key]["hypothesis"]).split()) for side in (a, b))
        right, open_segment = 2, [0, 0]
        for one, other in zip(ours, theirs, strict=True):
            right = right + 1 if one == other == 0 else 0
            open_segment[0] += one
            open_segment[1] += other
            if right >= 2 and any(open_segment):
                found.append(open_segment[0] - open_segment[1])
                open_segment = [0, 0]
        if any(open_segment):
            found.append(open_segment[0] - open_segment[1])
    return found


def _errors_at(expected: list[str], said: list[str]) -> list[int]:
    """Errors at every reference word. Insertions count at the word before them, leading insertions at index 0."""
    at = [0] * (len(expected) + 1)
    place = 0
    for step in align(expected, said):
        if step.kind == "insert":
            at[place] += len(step.said)
        elif step.kind != "equal":
            for offset in range(len(step.expected)):
                at[place + 1 + offset] += 1
        place += len(step.expected)
    return at
