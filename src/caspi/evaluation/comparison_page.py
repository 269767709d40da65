"""The page of a comparison: which system is better, and which utterances changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from caspi.evaluation.evaluation_page import WORST, audio_cell, difference
from caspi.reporting.report import Page, Table
from caspi.reporting.wording import FEW, SYNTHETIC_NOTE, percent, rate

_Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Changed:
    """Rows of A and B that differ, the largest difference in errors first; other: different words, as many errors."""

    better: list[tuple[_Row, _Row]]
    worse: list[tuple[_Row, _Row]]
    other: list[tuple[_Row, _Row]]

    @classmethod
    def between(cls, a: Mapping[str, _Row], b: Mapping[str, _Row]) -> Changed:
        found = cls([], [], [])
        for key, row in a.items():
            if b[key]["hypothesis"] != row["hypothesis"]:
                more = b[key]["errors"] - row["errors"]
                (found.better if more < 0 else found.worse if more > 0 else found.other).append((row, b[key]))
        for pairs in (found.better, found.worse):
            pairs.sort(key=lambda pair: -abs(pair[0]["errors"] - pair[1]["errors"]))
        return found

    @property
    def all(self) -> list[tuple[_Row, _Row]]:
        return [*self.better, *self.worse, *self.other]

    @property
    def shown(self) -> list[str]:
        """Ids of the rows that the page shows."""
        return [row["id"] for pairs in (self.better, self.worse) for row, _ in pairs[:WORST]]


def compare_page(summary: dict[str, Any], changed: Changed, clips: Mapping[str, bytes]) -> Page:
    """Which is better, and which utterances got better and worse."""
    main = summary["leaderboard"]
    return Page(
        title=f"caspi compare · A = {summary['a']} · B = {summary['b']}",
        headline=main["sentence"],
        facts=[
            ("WER of A", percent(main["wer_a"])),
            ("WER of B", percent(main["wer_b"])),
            ("better in B", f"{len(changed.better):,}"),
            ("worse in B", f"{len(changed.worse):,}"),
            ("different words, same number of errors", f"{len(changed.other):,}"),
        ],
        parts=[
            Table(
                "Both scores",
                ("score", "A", "B", "A - B [95 %]", "p", "p, matched pairs"),
                [
                    (
                        n,
                        rate(s["wer_a"]),
                        rate(s["wer_b"]),
                        rate(s["difference"], s["interval"]),
                        f"{s['p']:.4f}",
                        f"{s['matched_pairs']:.4f}",
                    )
                    for n, s in ((n, summary[n]) for n in ("leaderboard", "fair"))
                ],
                note=_compared(main),
            ),
            _changed("Better in B", changed.better, clips),
            _changed("Worse in B", changed.worse, clips),
            *_differences_by(summary["by"]),
            *_differences_in_kind(summary["kinds"]),
            _changed("Different words, same number of errors", changed.other, clips),
        ],
        synthetic=SYNTHETIC_NOTE if any(row.get("synthetic") for row, _ in changed.all) else "",
    )


def _compared(main: dict[str, Any]) -> str:
    over = "groups (recordings or speakers)" if main["groups"] < main["utterances"] else "utterances"
    note = (
        f"Paired interval and its test over {main['groups']:,} {over} (jackknife, Student's t). Matched pairs: NIST's "
        "test over segments, which assumes independent segments even if one speaker said them."
    )
    if main["groups"] < FEW:
        note += f" Only a rough estimate: {main['groups']:,} groups are few."
    return note


def _differences_by(by: dict[str, dict[str, dict[str, Any]]]) -> list[Table]:
    """WER of A minus WER of B for each part."""
    tables = []
    for what, parts in by.items():
        rows = [
            (
                name, f"{found['utterances']:,}", rate(found["wer_a"]), rate(found["wer_b"]),
                rate(found["difference"], found["interval"]), f"{found['p']:.3f}" if found["interval"] else "one group",
            )
            for name, found in parts.items()
        ]  # fmt: skip
        columns = (what, "utterances", "A", "B", "A - B [95 %]", "p")
        tables.append(Table(f"Difference by {what}", columns, rows, note="Not corrected for the number of rows."))
    return tables


def _differences_in_kind(kinds: dict[str, dict[str, Any]]) -> list[Table]:
    if not kinds:
        return []
    rows = [
        (
            kind, f"{found['a']:,}", f"{found['b']:,}", rate(found["difference"], found["interval"]),
            f"{found['p']:.3f}" if found["interval"] else "one group",
        )
        for kind, found in sorted(kinds.items(), key=lambda item: -abs(item[1]["difference"]))
    ]  # fmt: skip
    note = "Fair score; the difference is per reference word. Not corrected for the number of rows."
    return [Table("Difference by kind of error", ("kind", "A", "B", "A - B [95 %]", "p"), rows, note=note)]


def _changed(
    title: str, pairs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]], clips: Mapping[str, bytes]
) -> Table:
    shown = pairs[:WORST]
    return Table(
        title if len(shown) == len(pairs) else f"{title}: the {len(shown)} largest changes of {len(pairs):,}",
        ("errors A", "errors B", "A", "B", "listen", "id"),
        [
            (
                x["errors"],
                y["errors"],
                difference(x, x["hypothesis"]),
                difference(x, y["hypothesis"]),
                audio_cell(x, clips),
                x["id"],
            )
            for x, y in shown
        ],
        text=(2, 3),
        note="" if pairs else "None.",
    )
