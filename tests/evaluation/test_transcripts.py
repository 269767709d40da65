"""Input formats: tables of other tools, and files of references and hypotheses."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from caspi import commands
from caspi.errors import UsageError
from caspi.evaluation.transcripts import Columns, read_transcripts

ROWS = [("שלום עולם", "שלום"), ("מה שלומך", "מה שלומך")]


def texts(path: Path, *options: object, **more: object) -> list[tuple[str, str]]:
    return [(p.reference, p.hypothesis) for p in read_transcripts(path, "Hebrew", *options, **more).pairs]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("reference", "hypothesis"),
    [
        ("reference", "hypothesis"), ("text", "pred_text"), ("ref", "hyp"), ("sentence", "pred"),
        ("references", "predictions"),
        ("reference_text", "predicted_text"), ("Reference", "Hypothesis "), ("ground truth", "Prediction"),
    ],
)  # fmt: skip
def test_common_column_names_are_recognised(reference: str, hypothesis: str, tmp_path: Path) -> None:
    """NeMo and the open leaderboard use text and pred_text, the ivrit evaluator uses reference_text."""
    path = tmp_path / "x.jsonl"
    path.write_text("\n".join(json.dumps({reference: r, hypothesis: h}) for r, h in ROWS))
    assert texts(path) == ROWS


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_tables_with_any_delimiter_are_read(delimiter: str, tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text(
        "\n".join(delimiter.join(row) for row in [("reference", "hypothesis"), *ROWS]), encoding="utf-8-sig"
    )
    assert texts(path) == ROWS


def test_json_arrays_and_parquet_are_tables(tmp_path: Path) -> None:
    rows = [{"reference": r, "hypothesis": h} for r, h in ROWS]
    (tmp_path / "x.json").write_text(json.dumps(rows))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "x.parquet")
    assert texts(tmp_path / "x.json") == texts(tmp_path / "x.parquet") == ROWS


def test_columns_can_be_named(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("gold,whisper,who,n\nא,ב,dana,1\n")
    [pair] = read_transcripts(path, "Hebrew", Columns("gold", "whisper", "n", "who")).pairs
    assert (pair.reference, pair.hypothesis, pair.id, pair.group) == ("א", "ב", "1", "dana")
    with pytest.raises(UsageError, match=r"no column silver; it has gold, whisper, who, n"):
        read_transcripts(path, "Hebrew", Columns("silver"))


def test_speaker_duration_and_file_columns_of_other_evaluators_are_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The columns of ivrit.ai's evaluator are used, and unused ones are reported."""
    path = tmp_path / "x.csv"
    path.write_text(
        "reference_text,predicted_text,audio_duration,speaker,filename,norm_wer\nא,א,2.5,dana,a.wav,0\nב,א,3,uri,b.wav,1\n"
    )
    found = read_transcripts(path, "Hebrew")
    assert [(pair.id, pair.seconds, pair.group) for pair in found.pairs] == [
        ("a.wav", 2.5, "dana"),
        ("b.wav", 3.0, "uri"),
    ]
    summary = commands.score.run(path, "he", tmp_path / "out").summary
    assert summary["audio_seconds"] == 5.5
    assert summary["groups"] == 2
    said = capsys.readouterr().err
    assert "group from speaker" in said
    assert "score: not used: norm_wer" in said


def test_repeated_file_names_are_not_used_as_ids(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("reference,hypothesis,filename\nא,א,a.wav\nב,א,a.wav\n")
    assert [pair.id for pair in read_transcripts(path, "Hebrew").pairs] == ["line-2", "line-3"]


def test_a_quote_at_the_start_of_a_cell_is_reported_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text('reference,hypothesis\nא,א\n"שלום" אמר,שלום\n')
    with pytest.raises(UsageError, match=r"line 3 cannot be read .*: put a text that begins with a double quote"):
        read_transcripts(path, "Hebrew")


def write(folder: Path, **files: str) -> None:
    for name, content in files.items():
        (folder / name.replace("_", ".")).write_text(content, encoding="utf-8")


def test_trn_files_are_matched_by_their_ids(tmp_path: Path) -> None:
    write(tmp_path, ref_trn="שלום עולם (u-1)\n;; a comment\n(u-2)\n", hyp_trn="מה (u-2)\nשלום (u-1)\n")
    assert texts(tmp_path / "ref.trn", hypotheses=tmp_path / "hyp.trn") == [("שלום עולם", "שלום"), ("", "מה")]


def test_kaldi_texts_are_matched_by_their_ids_and_plain_lines_by_their_order(tmp_path: Path) -> None:
    write(tmp_path, ref_txt="u1 שלום עולם\nu2\n", hyp_txt="u2 מה\nu1 שלום\n")
    assert texts(tmp_path / "ref.txt", hypotheses=tmp_path / "hyp.txt") == [("שלום עולם", "שלום"), ("", "מה")]
    write(tmp_path, ref_txt="שלום עולם\nטוב\n", hyp_txt="שלום\n\n")
    assert texts(tmp_path / "ref.txt", hypotheses=tmp_path / "hyp.txt") == [("שלום עולם", "שלום"), ("טוב", "")]
    write(tmp_path, hyp_txt="שלום\n")
    with pytest.raises(UsageError, match=r"has 2 lines and .* has 1, and no ids match"):
        texts(tmp_path / "ref.txt", hypotheses=tmp_path / "hyp.txt")


def test_ctm_words_are_assigned_to_stm_segments(tmp_path: Path) -> None:
    write(
        tmp_path,
        ref_stm="talk 1 dana 0.0 2.0 <o,f0> שלום עולם\ntalk 1 uri 2.0 4.0 טוב מאוד\n",
        hyp_ctm="talk 1 0.1 0.5 שלום 0.9\ntalk 1 1.9 0.4 טוב 0.8\ntalk 1 9.0 0.2 סוף\n",
    )
    found = texts(tmp_path / "ref.stm", hypotheses=tmp_path / "hyp.ctm")
    assert found == [("שלום עולם", "שלום"), ("טוב מאוד", "טוב סוף")]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"ref_trn": "א (1)\n", "hyp_trn": "א (2)\n"}, "have different utterances, 2 of them in only one, such as 1"),
        ({"ref_trn": "א\n", "hyp_trn": "א (1)\n"}, "line 1: no (id) at the end"),
        (
            {"ref_txt": "u1 a b\nu2 d\n", "hyp_txt": "u2 d\nu3 a b\n"},
            "have different utterances, 2 of them in only one, such as u1",
        ),
        ({"ref_stm": "t 1 d 0 1 א\n", "hyp_ctm": "u 1 0 1 א\n"}, "has no segment of u, channel 1"),
        ({"ref_stm": "t 1 d 0\n", "hyp_ctm": "t 1 0 1 א\n"}, "line 1: 4 columns, expected 5 or more"),
    ],
)
def test_files_that_do_not_match_are_reported(files: dict[str, str], message: str, tmp_path: Path) -> None:
    write(tmp_path, **files)
    one, other = (tmp_path / name.replace("_", ".") for name in files)
    with pytest.raises(UsageError, match=re.escape(message)):
        read_transcripts(one, "Hebrew", hypotheses=other)


def test_rates_of_other_tools_are_reported_beside_the_corpus_rate(tmp_path: Path) -> None:
    rows = [
        {"reference": "א ב ג ד", "hypothesis": "א ב ג ד", "source": "x"},
        {"reference": "א ב", "hypothesis": "א", "source": "x"},
        {"reference": "ה", "hypothesis": "ו", "source": "y"},
    ]
    path = tmp_path / "x.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    summary = commands.score.run(path, "Hebrew", tmp_path / "out").summary
    assert summary["leaderboard"]["wer"] == pytest.approx(2 / 7)
    assert summary["leaderboard"]["sentence_error_rate"] == pytest.approx(2 / 3)
    assert summary["leaderboard"]["mean_wer"] == pytest.approx((0 + 0.5 + 1) / 3)
    assert summary["macro"]["leaderboard"] == pytest.approx((1 / 6 + 1) / 2)
    assert summary["errors"]["confused"] == [("ה", "ו", 1)]
    assert summary["errors"]["deleted"] == [("ב", 1)]


def test_a_score_that_fails_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps({"reference": "א", "hypothesis": "א"}))

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("caspi.evaluation.summary.write_results", interrupted)
    with pytest.raises(KeyboardInterrupt):
        commands.score.run(path, "Hebrew", tmp_path / "out")
    assert [found.name for found in tmp_path.iterdir()] == ["x.jsonl"]


def test_first_words_of_plain_lines_are_not_used_as_ids(tmp_path: Path) -> None:
    """If first words were used as ids, they would not be scored."""
    write(tmp_path, ref_txt="שלום עולם\nמה נשמע\n", hyp_txt="שלום\nמה\n")
    assert texts(tmp_path / "ref.txt", hypotheses=tmp_path / "hyp.txt") == [("שלום עולם", "שלום"), ("מה נשמע", "מה")]


def test_json_lines_in_a_json_file_are_read(tmp_path: Path) -> None:
    """NeMo gives its manifests this suffix."""
    path = tmp_path / "x.json"
    path.write_text("\n".join(json.dumps({"text": r, "pred_text": h}) for r, h in ROWS))
    assert texts(path) == ROWS


def test_text_in_another_script_requires_a_language(tmp_path: Path) -> None:
    path = tmp_path / "spanish.jsonl"
    path.write_text('{"reference": "hola mundo", "hypothesis": "hola"}\n', encoding="utf-8")
    with pytest.raises(UsageError, match="most of its letters are not Hebrew: give --language"):
        commands.score.run(path, None, tmp_path / "out")
    assert commands.score.run(path, "Spanish", tmp_path / "out").summary["fair"]["wer"] == 0.5
