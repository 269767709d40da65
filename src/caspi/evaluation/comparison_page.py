"""The page of a comparison: which system is better, and which utterances changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from caspi.evaluation.compare import Comparison, KindDifference, Results
from caspi.evaluation.evaluation_page import WORST, audio_cell, difference
from caspi.evaluation.results import ScoredUtterance
from caspi.reporting.report import Page, Table
from caspi.reporting.wording import FEW, SYNTHETIC_NOTE, percent, rate

_Both = tuple[ScoredUtterance, ScoredUtterance]


@dataclass(frozen=True, slots=True)
class Changed:
    """Utterances that A and B recognise differently, the largest difference in errors first. other: different
    hypotheses, same number of errors."""

    better: list[_Both]
    worse: list[_Both]
    other: list[_Both]

    @classmethod
    def between(cls, a: Results, b: Results) -> Changed:
        changed = cls([], [], [])
        for key, scored in a.items():
            if b[key].pair.hypothesis != scored.pair.hypothesis:
                more = b[key].leaderboard.errors - scored.leaderboard.errors
                (changed.better if more < 0 else changed.worse if more > 0 else changed.other).append((scored, b[key]))
        for both in (changed.better, changed.worse):
            both.sort(key=lambda two: -abs(two[0].leaderboard.errors - two[1].leaderboard.errors))
        return changed

    @property
    def all(self) -> list[_Both]:
        return [*self.better, *self.worse, *self.other]

    @property
    def shown(self) -> list[str]:
        """Ids of the rows that the page shows."""
        return [scored.pair.id for both in (self.better, self.worse) for scored, _ in both[:WORST]]


@dataclass(frozen=True, slots=True)
class ComparisonReport:
    """Everything that the page shows. a, b: the folders."""

    a: str
    b: str
    scores: dict[str, Comparison]
    by: dict[str, dict[str, Comparison]]
    kinds: dict[str, KindDifference]
    changed: Changed

    def as_json(self) -> dict[str, Any]:
        return {
            "a": self.a,
            "b": self.b,
            **{name: asdict(score) | {"sentence": score.sentence()} for name, score in self.scores.items()},
            "by": {what: {name: asdict(part) for name, part in parts.items()} for what, parts in self.by.items()},
            "kinds": {kind: asdict(difference) for kind, difference in self.kinds.items()},
            "differ": len(self.changed.all),
            "better": len(self.changed.better),
            "worse": len(self.changed.worse),
        }


def compare_page(report: ComparisonReport, clips: Mapping[str, bytes]) -> Page:
    """Which is better, and which utterances got better and worse."""
    main, changed = report.scores["leaderboard"], report.changed
    return Page(
        title=f"caspi compare · A = {report.a} · B = {report.b}",
        headline=main.sentence(),
        facts=[
            ("WER of A", percent(main.wer_a)),
            ("WER of B", percent(main.wer_b)),
            ("better in B", f"{len(changed.better):,}"),
            ("worse in B", f"{len(changed.worse):,}"),
            ("different hypotheses, same number of errors", f"{len(changed.other):,}"),
        ],
        parts=[
            Table(
                "Both scores",
                ("score", "A", "B", "A - B [95 %]", "p", "p, matched pairs"),
                [
                    (
                        name,
                        rate(score.wer_a),
                        rate(score.wer_b),
                        rate(score.difference, score.interval),
                        f"{score.p:.4f}",
                        f"{score.matched_pairs:.4f}",
                    )
                    for name, score in report.scores.items()
                ],
                note=_compared(main),
            ),
            _changed("Better in B", changed.better, clips),
            _changed("Worse in B", changed.worse, clips),
            *_differences_by(report.by),
            *_differences_in_kind(report.kinds),
            _changed("Different hypotheses, same number of errors", changed.other, clips),
        ],
        synthetic=SYNTHETIC_NOTE if any(scored.pair.synthetic for scored, _ in changed.all) else "",
    )


def _compared(main: Comparison) -> str:
    over = "groups (recordings or speakers)" if main.groups < main.utterances else "utterances"
    note = (
        f"Paired interval and its test over {main.groups:,} {over} (jackknife, Student's t). Matched pairs: NIST's "
        "test over segments, which assumes independent segments even if one speaker said them."
    )
    if main.groups < FEW:
        note += f" Only a rough estimate: {main.groups:,} groups are few."
    return note


def _differences_by(by: dict[str, dict[str, Comparison]]) -> list[Table]:
    """WER of A minus WER of B for each part."""
    tables = []
    for what, parts in by.items():
        rows = [
            (
                name, f"{part.utterances:,}", rate(part.wer_a), rate(part.wer_b),
                rate(part.difference, part.interval), f"{part.p:.3f}" if part.interval else "one group",
            )
            for name, part in parts.items()
        ]  # fmt: skip
        columns = (what, "utterances", "A", "B", "A - B [95 %]", "p")
        tables.append(Table(f"Difference by {what}", columns, rows, note="Not corrected for the number of rows."))
    return tables


def _differences_in_kind(kinds: dict[str, KindDifference]) -> list[Table]:
    if not kinds:
        return []
    rows = [
        (
            kind, f"{errors.a:,}", f"{errors.b:,}", rate(errors.difference, errors.interval),
            f"{errors.p:.3f}" if errors.interval else "one group",
        )
        for kind, errors in sorted(kinds.items(), key=lambda item: -abs(item[1].difference))
    ]  # fmt: skip
    note = "Fair score; the difference is per reference word. Not corrected for the number of rows."
    return [Table("Difference by kind of error", ("kind", "A", "B", "A - B [95 %]", "p"), rows, note=note)]


def _changed(title: str, pairs: Sequence[_Both], clips: Mapping[str, bytes]) -> Table:
    shown = pairs[:WORST]
    return Table(
        title if len(shown) == len(pairs) else f"{title}: the {len(shown)} largest changes of {len(pairs):,}",
        ("errors A", "errors B", "A", "B", "listen", "id"),
        [
            (
                a.leaderboard.errors,
                b.leaderboard.errors,
                difference(a.pair, a.pair.hypothesis),
                difference(a.pair, b.pair.hypothesis),
                audio_cell(a.pair.id, clips),
                a.pair.id,
            )
            for a, b in shown
        ],
        text=(2, 3),
        note="" if pairs else "None.",
    )
