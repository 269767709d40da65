"""Compares two evaluations of the same utterances: is one better, and could the difference be chance?"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from caspi.errors import UsageError
from caspi.evaluation.breakdowns import duration_class
from caspi.evaluation.error_types import ErrorTypes
from caspi.evaluation.pairs import TranscriptPair
from caspi.evaluation.results import SUMMARY, ScoredUtterance, UtteranceScore, read_results
from caspi.language import language
from caspi.reporting.wording import FEW, percent, plural
from caspi.scoring.edits import align
from caspi.scoring.intervals import Interval, matched_pairs, paired

Results = Mapping[str, ScoredUtterance]
_SCORES: dict[str, Callable[[ScoredUtterance], UtteranceScore]] = {
    "leaderboard": lambda scored: scored.leaderboard,
    "fair": lambda scored: scored.fair,
}


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


@dataclass(frozen=True, slots=True)
class KindDifference:
    """Errors of one kind in A and in B. difference: A minus B, per reference word."""

    a: int
    b: int
    difference: float
    interval: Interval | None
    p: float


def read_both(a: Path, b: Path) -> tuple[Results, Results]:
    """Results of A and of B by the ids of A. If the ids differ, utterances are matched by their references, provided
    that these are the same in the same order, or that each occurs once in both.

    Raises UsageError if the two do not have the same utterances, or were not scored by the same rules.
    """
    in_a, in_b = read_results(a), read_results(b)
    if in_a.keys() != in_b.keys():
        in_b = _by_reference(in_a, in_b, a, b)
    for key, scored in in_a.items():
        one, other = scored.pair, in_b[key].pair
        if one.reference != other.reference:
            raise UsageError(f"{a} and {b} have different references for {key}")
        if one.language and other.language and one.language != other.language:
            raise UsageError(
                f"{a} is scored by the rules of {one.language}, {b} by those of {other.language} ({key}): "
                "score both again with the same --language"
            )
    versions = {_version(folder) for folder in (a, b)} - {None}
    if len(versions) > 1:
        raise UsageError(
            f"{a} and {b} were scored by different versions of the fair rules: evaluate or score both again"
        )
    for key, scored in in_a.items():
        if any(of(scored).words != of(in_b[key]).words for of in _SCORES.values()):
            raise UsageError(
                f"{a} and {b} count different numbers of words in {key}: they were scored by different rules; "
                "evaluate or score both again"
            )
    return in_a, in_b


def _version(folder: Path) -> object:
    summary = (folder if folder.is_dir() else folder.parent) / SUMMARY
    return json.loads(summary.read_text("utf-8")).get("fair_version") if summary.is_file() else None


def _by_reference(in_a: Results, in_b: Results, a: Path, b: Path) -> dict[str, ScoredUtterance]:
    """The results of B under the ids of A."""
    references_a = [scored.pair.reference for scored in in_a.values()]
    references_b = [scored.pair.reference for scored in in_b.values()]
    if references_a == references_b:
        return dict(zip(in_a, in_b.values(), strict=True))
    if sorted(references_a) == sorted(references_b) and len(set(references_a)) == len(references_a):
        by_text = dict(zip(references_b, in_b.values(), strict=True))
        return {key: by_text[scored.pair.reference] for key, scored in in_a.items()}
    only = sorted(in_a.keys() ^ in_b.keys())
    raise UsageError(f"{a} and {b} have different utterances, {len(only)} of them in only one, such as {only[0]}")


def compare(a: Path, b: Path) -> dict[str, Comparison]:
    """A paired interval and test over groups, for each score. Swapping A and B changes only the signs.

    Raises UsageError as `read_both` does, and if the two assign utterances to different groups.
    """
    return scores(*read_both(a, b), a, b)


def scores(in_a: Results, in_b: Results, a: Path, b: Path) -> dict[str, Comparison]:
    """`compare` for results that were already read from a and b."""
    groups = _groups(in_a, in_b, a, b)
    return {score: _compare(score, in_a, in_b, groups) for score in _SCORES}


_PARTS: dict[str, Callable[[TranscriptPair], str]] = {
    "source": lambda pair: pair.source,
    "duration": lambda pair: duration_class(pair.seconds) or "",
    "speaker or recording": lambda pair: pair.group,
}
_PARTS_AT_MOST = 30


def by_part(in_a: Results, in_b: Results, a: Path, b: Path) -> dict[str, dict[str, Comparison]]:
    """The leaderboard comparison for every source, duration class and group, if there are several; limited to those
    with the most words. a, b: the folders the results were read from, for messages."""
    groups = dict(zip(in_a, _groups(in_a, in_b, a, b), strict=True))
    comparisons: dict[str, dict[str, Comparison]] = {}
    for what, part_of in _PARTS.items():
        parts: defaultdict[str, list[str]] = defaultdict(list)
        for key, scored in in_a.items():
            parts[part_of(scored.pair) or part_of(in_b[key].pair)].append(key)
        if len(parts) < 2 or (len(parts) == len(in_a) and what != "source"):
            continue
        words = {name: sum(in_a[key].leaderboard.words for key in keys) for name, keys in parts.items()}
        largest = sorted(parts, key=lambda name: -words[name])[:_PARTS_AT_MOST]
        comparisons[what] = {
            name or "not named": _compare(
                "leaderboard",
                {key: in_a[key] for key in parts[name]},
                {key: in_b[key] for key in parts[name]},
                [groups[key] for key in parts[name]],
            )
            for name in sorted(largest)
        }
    return comparisons


def by_kind(in_a: Results, in_b: Results, a: Path, b: Path) -> dict[str, KindDifference]:
    """Errors of every kind (error_types) in A and in B under the fair score, and the difference per reference word.
    a, b: the folders the results were read from, for messages."""
    groups = _groups(in_a, in_b, a, b)
    words = [scored.fair.words for scored in in_a.values()]
    kinds_a, kinds_b = ([_kinds(scored.pair, in_a[key].pair) for key, scored in side.items()] for side in (in_a, in_b))
    differences = {}
    for kind in sorted(set().union(*kinds_a, *kinds_b)):
        errors_a, errors_b = ([counts[kind] for counts in side] for side in (kinds_a, kinds_b))
        apart = [one - other for one, other in zip(errors_a, errors_b, strict=True)]
        interval, p = paired(apart, words, groups)
        differences[kind] = KindDifference(sum(errors_a), sum(errors_b), sum(apart) / max(1, sum(words)), interval, p)
    return differences


def _kinds(pair: TranscriptPair, with_language: TranscriptPair) -> Counter[str]:
    spoken = language(with_language.language or "Hebrew")
    types = ErrorTypes()
    fair = spoken.normalisers["fair"]
    types.add(fair(pair.reference).split(), fair(pair.hypothesis).split(), spoken)
    return +types.kinds


def _groups(in_a: Results, in_b: Results, a: Path, b: Path) -> list[tuple[str, str]]:
    """The group of every utterance, from the side that has it."""
    a_to_b: dict[str, str] = {}
    b_to_a: dict[str, str] = {}
    groups = []
    for key, scored in in_a.items():
        one, other = scored.pair.group, in_b[key].pair.group
        if one and other and (a_to_b.setdefault(one, other), b_to_a.setdefault(other, one)) != (other, one):
            raise UsageError(
                f"{a} and {b} put {key} into different groups, {one} and {other}: score both with the same speakers"
            )
        source = " / ".join(sorted({scored.pair.source, in_b[key].pair.source} - {""}))
        groups.append((source, one or other) if one or other else ("", key))
    return [(source, b_to_a.get(group, group)) for source, group in groups]


def _compare(score: str, a: Results, b: Results, groups: list[tuple[str, str]]) -> Comparison:
    of = _SCORES[score]
    errors_a, errors_b = ([of(scored).errors for scored in side.values()] for side in (a, b))
    words = [of(scored).words for scored in a.values()]
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
        identical=all(scored.pair.hypothesis == b[key].pair.hypothesis for key, scored in a.items()),
    )


def _segments(a: Results, b: Results, score: str) -> list[int]:
    """Errors of A minus errors of B in every segment with errors. A segment ends where both have two words right."""
    segments = []
    for key, scored in a.items():
        normalise = language(scored.pair.language or "Hebrew").normalisers[score]
        reference = normalise(scored.pair.reference).split()
        in_a, in_b = (_errors_at(reference, normalise(side[key].pair.hypothesis).split()) for side in (a, b))
        right, open_segment = 2, [0, 0]
        for one, other in zip(in_a, in_b, strict=True):
            right = right + 1 if one == other == 0 else 0
            open_segment[0] += one
            open_segment[1] += other
            if right >= 2 and any(open_segment):
                segments.append(open_segment[0] - open_segment[1])
                open_segment = [0, 0]
        if any(open_segment):
            segments.append(open_segment[0] - open_segment[1])
    return segments


def _errors_at(reference: list[str], hypothesis: list[str]) -> list[int]:
    """Errors at every reference word. Insertions count at the word before them, leading insertions at index 0."""
    at = [0] * (len(reference) + 1)
    place = 0
    for step in align(reference, hypothesis):
        if step.kind == "insert":
            at[place] += len(step.hypothesis)
        elif step.kind != "equal":
            for offset in range(len(step.reference)):
                at[place + 1 + offset] += 1
        place += len(step.reference)
    return at
