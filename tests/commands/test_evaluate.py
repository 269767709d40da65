from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from caspi import commands
from caspi.errors import UsageError
from caspi.evaluation.compare import compare
from caspi.evaluation.options import EvaluationOptions


def score_csv(folder: Path, name: str, rows: list[tuple[str, str]], header: str = "reference,hypothesis") -> Path:
    path = folder / f"{name}.csv"
    path.write_text("\n".join([header, *(f"{r},{h}" for r, h in rows)]), encoding="utf-8")
    return path


def test_evaluate_keeps_its_file_contract(small_run: Path, small_corpus: Path, tmp_path: Path) -> None:
    model = json.loads((small_run / "report.json").read_text())["final"]
    commands.evaluate.run(model, [str(small_corpus)], tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 12
    wanted = {"id", "reference", "hypothesis", "seconds", "source", "wer", "cer", "truncated"}
    assert all(wanted <= row.keys() for row in rows)
    summary = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))
    for name in ("leaderboard", "fair"):
        found = summary[name]["wer_ci"]  # none where a loop has most of the errors, which `tiny` is free to have
        assert found is None or found[0] <= summary[name]["wer"] <= found[1]
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
        commands.score.run(score_csv(tmp_path, "ours", rows), "Hebrew", tmp_path / "1").summary,
        commands.score.run(
            score_csv(tmp_path, "ivrit", rows, "reference_text,predicted_text"), "Hebrew", tmp_path / "2"
        ).summary,
    ]
    lines = tmp_path / "lines.jsonl"
    lines.write_text("\n".join(json.dumps({"reference": r, "hypothesis": h}) for r, h in rows))
    found.append(commands.score.run(lines, "Hebrew", tmp_path / "3").summary)
    assert [summary["leaderboard"]["wer"] for summary in found] == [0.25] * 3


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.csv", "reference,hypothesis\n", "holds no utterance"),
        (
            "columns.csv",
            "a,b\n1,2\n",
            "nor any of its usual names; it has a, b: name it with --reference",
        ),
        ("short.csv", "reference,hypothesis\nשלום\n", "line 2: hypothesis has no value"),
        ("cut.jsonl", '{"reference": "א", "hypothesis": "א"}\n{"reference": "ב", "hyp', "line 2 is not JSON"),
        ("nan.jsonl", '{"reference": "א", "hypothesis": NaN}\n', "hypothesis is nan, not text"),
        ("five.jsonl", "5\n", "line 1: expected an object, found 5"),
        ("long.csv", "reference,hypothesis,seconds\nא,א,-1\n", "line 2: seconds is '-1', not a duration"),
        ("file.txt", "x", r"expected .csv, .tsv, .jsonl, .json or .parquet"),
        ("comma.csv", "reference,hypothesis\nשלום, עולם,שלום עולם\n", "line 2 has more cells than .* double quotes"),
        ("open.csv", 'reference,hypothesis\nא,"ב\n', "line 2 cannot be read .*cut off"),
        ("two.csv", "reference,hypothesis,hypothesis\nא,א,ב\n", "has the column hypothesis 2 times"),
        ("half.jsonl", '{"reference": "\\ud800", "hypothesis": "א"}\n', "line 1: reference holds half a character"),
        ("silent.csv", "reference,hypothesis\n...,שלום\n", "no reference holds a word"),
        ("twice.csv", "id,reference,hypothesis\n7,א,א\n8,ב,ב\n7,ג,ג\n", "utterances 1 and 3 have the same id, 7"),
    ],
)
def test_bad_transcripts_end_in_one_clear_line(tmp_path: Path, name: str, content: str, message: str) -> None:
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UsageError, match=message):
        commands.score.run(path, "Hebrew", tmp_path / "out")


def test_unicode_line_separators_inside_a_transcript_are_text(tmp_path: Path) -> None:
    path = tmp_path / "odd.jsonl"
    path.write_text(json.dumps({"reference": "שלום\u2028עולם", "hypothesis": "שלום\u0085עולם"}, ensure_ascii=False))
    assert commands.score.run(path, "Hebrew", tmp_path / "out").summary["leaderboard"]["wer"] == 0


def test_a_corpus_is_not_an_output_folder(small_run: Path, small_corpus: Path) -> None:
    model = json.loads((small_run / "report.json").read_text())["final"]
    before = (small_corpus / "report.json").read_bytes()
    with pytest.raises(UsageError, match="no caspi evaluate made it"):
        commands.evaluate.run(model, [str(small_corpus)], small_corpus)
    assert (small_corpus / "report.json").read_bytes() == before


def test_compare_finds_a_real_difference_and_no_false_one(tmp_path: Path) -> None:
    rows = [(f"מלה אחת ועוד מלה {chr(0x5D0 + n % 22)}", n) for n in range(120)]
    right = [(r, r) for r, _ in rows]
    worse = [(r, r.rsplit(" ", 1)[0] if n % 2 else r) for r, n in rows]
    same = [(r, r.rsplit(" ", 1)[0] if n % 2 == 0 else r) for r, n in rows]
    for name, pairs in (("right", right), ("worse", worse), ("same", same)):
        commands.score.run(score_csv(tmp_path, name, pairs), "Hebrew", tmp_path / name)
    better = compare(tmp_path / "worse", tmp_path / "right")["leaderboard"]
    assert better.difference == pytest.approx(60 / 600)
    assert better.interval[0] > 0
    assert better.p < 0.001
    assert better.sentence().startswith("B is better than A by 10.00 points [")
    assert compare(tmp_path / "right", tmp_path / "worse")["leaderboard"].sentence().startswith("A is better than B")
    nothing = compare(tmp_path / "worse", tmp_path / "same")["leaderboard"]
    assert nothing.p > 0.5
    assert nothing.sentence().startswith("no difference shown")


def test_compare_refuses_what_cannot_be_compared(tmp_path: Path) -> None:
    commands.score.run(score_csv(tmp_path, "a", [("שלום", "שלום")]), "Hebrew", tmp_path / "a")
    commands.score.run(score_csv(tmp_path, "b", [("שלום", "שלום"), ("עולם", "עולם")]), "Hebrew", tmp_path / "b")
    commands.score.run(score_csv(tmp_path, "c", [("אחר", "שלום")]), "Hebrew", tmp_path / "c")
    with pytest.raises(UsageError, match="different utterances, 1 of them"):
        compare(tmp_path / "a", tmp_path / "b")
    with pytest.raises(UsageError, match="different references"):
        compare(tmp_path / "a", tmp_path / "c")
    results = tmp_path / "a" / "results.jsonl"
    results.write_text(results.read_text()[:30])
    with pytest.raises(UsageError, match="was the file cut off"):
        compare(tmp_path / "a", tmp_path / "c")


def results(folder: Path, name: str, errors: list[int], groups: list[str], words: int = 10) -> Path:
    """A file of results in which so many words of each utterance are wrong."""
    lines = [
        {"id": str(n), "reference": "א", "hypothesis": f"ב {name}", "group": group, "errors": wrong, "words": words,
         "fair_errors": wrong, "fair_words": words}
        for n, (wrong, group) in enumerate(zip(errors, groups, strict=True))
    ]  # fmt: skip
    path = folder / f"{name}.jsonl"
    path.write_text("\n".join(json.dumps(line) for line in lines))
    return path


def test_the_interval_of_a_comparison_is_paired_and_95_percent(tmp_path: Path) -> None:
    """Utterances differ far more than the two systems do on each of them."""
    draw = np.random.default_rng(0)
    base, gained = draw.integers(1, 9, 400), draw.binomial(1, 0.3, 400)
    alone = [str(n) for n in range(400)]
    found = compare(
        results(tmp_path, "a", base.tolist(), alone), results(tmp_path, "b", (base - gained).tolist(), alone)
    )
    low, high = found["leaderboard"].interval or (0, 0)
    assert (high - low) / 2 == pytest.approx(1.96 * float(gained.std()) / 400**0.5 / 10, rel=0.1)
    assert found["leaderboard"].groups == 400


def test_speakers_are_compared_not_their_utterances(tmp_path: Path) -> None:
    """Every utterance of one of ten speakers got better: of utterances that is beyond doubt, of speakers it is not."""
    groups = [str(n // 10) for n in range(100)]
    better = [0 if group == "0" else 2 for group in groups]
    one = compare(results(tmp_path, "a", [2] * 100, groups), results(tmp_path, "b", better, groups))["leaderboard"]
    assert one.groups == 10
    assert not one.shown
    assert "100 utterances in 10 groups" in one.sentence()
    alone = [str(n) for n in range(100)]
    many = compare(results(tmp_path, "c", [2] * 100, alone), results(tmp_path, "d", better, alone))["leaderboard"]
    assert many.shown


def test_few_speakers_show_no_difference_and_say_so(tmp_path: Path) -> None:
    for count, said in ((1, "(no interval), p = 1.000, 20 utterances in 1 group"), (2, "20 utterances in 2 groups")):
        groups = [str(n % count) for n in range(20)]
        better = [0, 2] * 10  # of the second of two speakers by less
        a, b = results(tmp_path, "a", [3] * 20, groups), results(tmp_path, "b", better, groups)
        found = compare(a, b)["leaderboard"]
        assert found.sentence().startswith("no difference shown: B is ahead by 20.00 points")
        assert said in found.sentence()


@pytest.mark.parametrize("wrong", ["NaN", "null", "-3", '"4"', "1.5"])
def test_counts_that_are_none_are_refused(tmp_path: Path, wrong: str) -> None:
    good = results(tmp_path, "a", [1, 2], ["x", "y"])
    bad = tmp_path / "b.jsonl"
    bad.write_text(good.read_text().replace('"errors": 2', f'"errors": {wrong}'))
    with pytest.raises(UsageError, match=r"b.jsonl, utterance 1: errors is .*, not a count"):
        compare(good, bad)


def test_a_score_does_not_replace_an_evaluation(small_corpus: Path, tmp_path: Path) -> None:
    commands.evaluate.run("tiny", [str(small_corpus)], tmp_path / "out", EvaluationOptions(limit=2))
    with pytest.raises(UsageError, match="no caspi score made it"):
        commands.score.run(score_csv(tmp_path, "x", [("שלום", "שלום")]), "Hebrew", tmp_path / "out")
    assert (tmp_path / "out" / "transcripts").is_dir()


def test_a_group_called_0_is_a_group(tmp_path: Path) -> None:
    lines = [{"reference": "שלום", "hypothesis": "שלום", "group": n % 2} for n in range(4)]
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, lines)))
    summary = commands.score.run(tmp_path / "x.jsonl", "Hebrew", tmp_path / "out").summary
    assert (summary["groups"], summary["independent"]) == (2, 2)


def test_the_page_says_what_was_evaluated(small_corpus: Path, tmp_path: Path) -> None:
    outcome = commands.evaluate.run("tiny", [str(small_corpus)], tmp_path / "out", EvaluationOptions(limit=5))
    assert "5 of 12 utterances" in outcome.line
    page = outcome.path.read_text(encoding="utf-8")
    assert f"<td>{small_corpus}</td><td>test</td><td>5 of 12</td>" in page
    assert outcome.summary["evaluated"][0]["of"] == 12
    assert json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))["limit"] == 5
