from __future__ import annotations

import json
from pathlib import Path

import pytest

from caspi import commands
from caspi.errors import UsageError
from caspi.evaluation.compare import compare


def score(folder: Path, name: str, rows: list[dict[str, str]], language: str = "Hebrew") -> Path:
    path = folder / f"{name}.jsonl"
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    commands.score.run(path, language, folder / name)
    return folder / name


def rows(texts: list[str], groups: list[str], reference: str = "שלום עולם טוב") -> list[dict[str, str]]:
    return [
        {"id": str(n), "reference": reference, "hypothesis": text, "group": group}
        for n, (text, group) in enumerate(zip(texts, groups, strict=True))
    ]


WORSE = ["שלום עולם רע" if n % 2 else "שלום עולם טוב" for n in range(80)]
BETTER = ["שלום עולם רע" if n % 20 == 1 else "שלום עולם טוב" for n in range(80)]


def test_groups_come_from_the_side_that_has_them(tmp_path: Path) -> None:
    named, unnamed = [f"s{n % 4}" for n in range(80)], [""] * 80
    a, b = score(tmp_path, "a", rows(WORSE, named)), score(tmp_path, "b", rows(BETTER, unnamed))
    one, other = compare(a, b)["leaderboard"], compare(b, a)["leaderboard"]
    assert one.groups == other.groups == 4
    assert one.p == other.p
    assert one.difference == -other.difference
    assert one.interval is not None
    assert other.interval == pytest.approx((-one.interval[1], -one.interval[0]))


def test_renamed_groups_match_if_they_map_one_to_one(tmp_path: Path) -> None:
    a = score(tmp_path, "a", rows(WORSE, [f"s{n % 4}" for n in range(80)]))
    b = score(tmp_path, "b", rows(BETTER, [f"speaker {n % 4}" for n in range(80)]))
    assert compare(a, b)["leaderboard"].groups == 4
    c = score(tmp_path, "c", rows(BETTER, [f"speaker {n % 5}" for n in range(80)]))
    for pair in ((a, c), (c, a)):
        with pytest.raises(UsageError, match="into different groups"):
            compare(*pair)


def test_the_difference_is_shown_by_kind_of_error(tmp_path: Path) -> None:
    groups = [f"s{n % 8}" for n in range(80)]
    alike = ["שלום עולם תוב" if n % 2 else "שלום עולם טוב" for n in range(80)]
    left_out = ["שלום טוב" if n % 4 == 1 else "שלום עולם טוב" for n in range(80)]
    a, b = score(tmp_path, "a", rows(alike, groups)), score(tmp_path, "b", rows(left_out, groups))
    kinds = commands.compare.run(a, b, tmp_path / "page").summary["kinds"]
    assert {kind: (found["a"], found["b"]) for kind, found in kinds.items()} == {
        "letters that sound alike": (40, 0),
        "left out": (0, 20),
    }
    assert kinds["letters that sound alike"]["difference"] == 40 / 240
    page = (tmp_path / "page" / "report.html").read_text("utf-8")
    assert "Difference by kind of error" in page


def test_the_same_group_name_in_two_sources_is_two_groups(tmp_path: Path) -> None:
    made = [row | {"source": f"set {n % 2}"} for n, row in enumerate(rows(WORSE, ["0"] * 80))]
    assert compare(score(tmp_path, "a", made), score(tmp_path, "b", rows(BETTER, [""] * 80)))["leaderboard"].groups == 2


def test_results_scored_with_different_language_rules_are_refused(tmp_path: Path) -> None:
    texts = ["צהל דוח ארהב"] * 10
    reference = 'צה"ל דו"ח ארה"ב'
    a = score(tmp_path, "a", rows(texts, [""] * 10, reference))
    b = score(tmp_path, "b", rows(texts, [""] * 10, reference), "English")
    for pair in ((a, b), (b, a)):
        with pytest.raises(UsageError, match="by the rules of"):
            compare(*pair)


@pytest.mark.parametrize("change", ["version", "words"])
def test_results_scored_with_different_rules_are_refused(tmp_path: Path, change: str) -> None:
    a, b = (score(tmp_path, name, rows(WORSE, [""] * 80)) for name in "ab")
    if change == "version":
        summary = json.loads((b / "summary.json").read_text())
        (b / "summary.json").write_text(json.dumps(summary | {"fair_version": 1}))
    else:
        (b / "results.jsonl").write_text(
            (b / "results.jsonl").read_text().replace('"fair_words": 3', '"fair_words": 4')
        )
    with pytest.raises(UsageError, match="score both again"):
        compare(a, b)


def test_identical_texts_are_reported_as_such(tmp_path: Path) -> None:
    a, b = (score(tmp_path, name, rows(WORSE, [""] * 80)) for name in "ab")
    assert compare(a, b)["leaderboard"].sentence().startswith("A and B have the same texts")


def test_different_ids_are_matched_by_order_or_reference(tmp_path: Path) -> None:
    texts = [f"מילה{n} עולם" for n in range(10)]
    ours = [{"id": str(n), "reference": text, "hypothesis": text} for n, text in enumerate(texts)]
    a = score(tmp_path, "a", ours)
    b = score(tmp_path, "b", [row | {"id": f"x{row['id']}"} for row in ours])
    c = score(tmp_path, "c", [row | {"id": f"y{row['id']}"} for row in reversed(ours)])
    assert compare(a, b)["leaderboard"].identical
    assert compare(a, c)["leaderboard"].identical
    d = score(tmp_path, "d", [row | {"id": f"z{row['id']}"} for row in ours[:9]])
    with pytest.raises(UsageError, match="different utterances"):
        compare(a, d)


def test_matched_pairs_segments_end_at_words_that_both_have_right(tmp_path: Path) -> None:
    """Two errors with two right words between them are two segments, as in NIST's sc_stats."""
    reference = "א ב ג ד ה ו ז ח"
    made = {"a": "X ב ג ד Y ו ז ח", "b": reference}
    a, b = (score(tmp_path, name, rows([text] * 6, [""] * 6, reference)) for name, text in made.items())
    assert compare(a, b)["leaderboard"].matched_pairs == 2 / 2**12, "twelve equal differences: the sign test"
    uneven = [made["a"], "א ב ג ד Y ו ז ח"] * 3
    c = score(tmp_path, "c", rows(uneven, [""] * 6, reference))
    assert compare(a, c)["leaderboard"].matched_pairs == pytest.approx(0.0455, abs=0.06)
