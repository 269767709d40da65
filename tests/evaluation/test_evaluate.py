from __future__ import annotations

import json
from pathlib import Path

import pytest

from caspi import commands
from caspi.errors import UsageError
from caspi.evaluation.compare import compare


def score_csv(folder: Path, name: str, rows: list[tuple[str, str]], header: str = "reference,hypothesis") -> Path:
    path = folder / f"{name}.csv"
    path.write_text("\n".join([header, *(f"{r},{h}" for r, h in rows)]), encoding="utf-8")
    return path


def test_evaluate_keeps_its_file_contract(small_run: Path, small_corpus: Path, tmp_path: Path) -> None:
    model = json.loads((small_run / "report.json").read_text())["final"]
    commands.evaluate(model, [str(small_corpus)], tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 12
    wanted = {"id", "reference", "hypothesis", "seconds", "source", "wer", "cer", "truncated"}
    assert all(wanted <= row.keys() for row in rows)
    summary = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))
    for name in ("leaderboard", "fair"):
        low, high = summary[name]["wer_ci"]
        assert low <= summary[name]["wer"] <= high
    errors, words = sum(row["errors"] for row in rows), sum(row["words"] for row in rows)
    assert summary["leaderboard"]["wer"] == pytest.approx(errors / words)
    assert summary["rtfx"] > 0
    assert summary["synthetic"] == 12
    content = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert content["model_fingerprint"]
    assert content["environment"]["revision"]
    assert "Synthetic speech" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_score_reads_csv_jsonl_and_the_ivrit_columns(tmp_path: Path) -> None:
    rows = [("שלום עולם", "שלום"), ("מה שלומך", "מה שלומך")]
    found = [
        commands.score(score_csv(tmp_path, "ours", rows), "Hebrew", tmp_path / "1").summary,
        commands.score(
            score_csv(tmp_path, "ivrit", rows, "reference_text,predicted_text"), "Hebrew", tmp_path / "2"
        ).summary,
    ]
    lines = tmp_path / "lines.jsonl"
    lines.write_text("\n".join(json.dumps({"reference": r, "hypothesis": h}) for r, h in rows))
    found.append(commands.score(lines, "Hebrew", tmp_path / "3").summary)
    assert [summary["leaderboard"]["wer"] for summary in found] == [0.25] * 3


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.csv", "reference,hypothesis\n", "holds no utterance"),
        ("columns.csv", "a,b\n1,2\n", r"line 2: no column reference or reference_text; it has a, b"),
        ("short.csv", "reference,hypothesis\nשלום\n", "line 2: hypothesis has no value"),
        ("cut.jsonl", '{"reference": "א", "hypothesis": "א"}\n{"reference": "ב", "hyp', "line 2 is not JSON"),
        ("nan.jsonl", '{"reference": "א", "hypothesis": NaN}\n', "hypothesis is nan, not text"),
        ("five.jsonl", "5\n", "line 1: expected an object, found 5"),
        ("long.csv", "reference,hypothesis,seconds\nא,א,-1\n", "line 2: seconds is '-1', not a duration"),
        ("file.txt", "x", "expected a .csv or .jsonl"),
        ("silent.csv", "reference,hypothesis\n...,שלום\n", "no reference holds a word"),
        ("twice.csv", "id,reference,hypothesis\n7,א,א\n8,ב,ב\n7,ג,ג\n", "utterances 1 and 3 have the same id, 7"),
    ],
)
def test_bad_transcripts_end_in_one_clear_line(tmp_path: Path, name: str, content: str, message: str) -> None:
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UsageError, match=message):
        commands.score(path, "Hebrew", tmp_path / "out")


def test_unicode_line_separators_inside_a_transcript_are_text(tmp_path: Path) -> None:
    path = tmp_path / "odd.jsonl"
    path.write_text(json.dumps({"reference": "שלום\u2028עולם", "hypothesis": "שלום\u0085עולם"}, ensure_ascii=False))
    assert commands.score(path, "Hebrew", tmp_path / "out").summary["leaderboard"]["wer"] == 0


def test_a_corpus_is_not_an_output_folder(small_run: Path, small_corpus: Path) -> None:
    model = json.loads((small_run / "report.json").read_text())["final"]
    before = (small_corpus / "report.json").read_bytes()
    with pytest.raises(UsageError, match="no caspi evaluate made it"):
        commands.evaluate(model, [str(small_corpus)], small_corpus)
    assert (small_corpus / "report.json").read_bytes() == before


def test_compare_finds_a_real_difference_and_no_false_one(tmp_path: Path) -> None:
    rows = [(f"מלה אחת ועוד מלה {chr(0x5D0 + n % 22)}", n) for n in range(120)]
    right = [(r, r) for r, _ in rows]
    worse = [(r, r.rsplit(" ", 1)[0] if n % 2 else r) for r, n in rows]
    same = [(r, r.rsplit(" ", 1)[0] if n % 2 == 0 else r) for r, n in rows]
    for name, pairs in (("right", right), ("worse", worse), ("same", same)):
        commands.score(score_csv(tmp_path, name, pairs), "Hebrew", tmp_path / name)
    better = compare(tmp_path / "worse", tmp_path / "right")["leaderboard"]
    assert better.difference == pytest.approx(60 / 600)
    assert better.interval[0] > 0
    assert better.p < 0.001
    assert better.sentence().startswith("B is better than A by 0.100 [")
    assert compare(tmp_path / "right", tmp_path / "worse")["leaderboard"].sentence().startswith("A is better than B")
    nothing = compare(tmp_path / "worse", tmp_path / "same")["leaderboard"]
    assert nothing.p > 0.5
    assert nothing.sentence().startswith("no difference shown")


def test_compare_refuses_what_cannot_be_compared(tmp_path: Path) -> None:
    commands.score(score_csv(tmp_path, "a", [("שלום", "שלום")]), "Hebrew", tmp_path / "a")
    commands.score(score_csv(tmp_path, "b", [("שלום", "שלום"), ("עולם", "עולם")]), "Hebrew", tmp_path / "b")
    commands.score(score_csv(tmp_path, "c", [("אחר", "שלום")]), "Hebrew", tmp_path / "c")
    with pytest.raises(UsageError, match="different utterances, 1 of them"):
        compare(tmp_path / "a", tmp_path / "b")
    with pytest.raises(UsageError, match="different references"):
        compare(tmp_path / "a", tmp_path / "c")
    results = tmp_path / "a" / "results.jsonl"
    results.write_text(results.read_text()[:30])
    with pytest.raises(UsageError, match="was the file cut off"):
        compare(tmp_path / "a", tmp_path / "c")
