from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from caspi import commands
from caspi.corpus.store import Corpus
from caspi.errors import UsageError
from caspi.evaluation import decode
from caspi.evaluation.decode import DecodeJob, ModelHandle
from caspi.evaluation.options import EvaluationOptions
from caspi.evaluation.results import RESULTS
from caspi.evaluation.stress import CONDITIONS
from caspi.inference.decoding_options import DecodingOptions
from caspi.inference.transcriber import Recording
from caspi.inference.transcripts import Transcript
from caspi.model.files import model_fingerprint
from caspi.reporting import report


@pytest.fixture
def corpus(small_corpus: Path) -> Corpus:
    return Corpus.open(small_corpus, "test")


TINY = ModelHandle("tiny", "tiny")


def test_decoding_resumes_without_repeating_utterances(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run is killed in the middle of a line."""
    part, kept = DecodeJob(corpus, range(len(corpus))), tmp_path / "kept.jsonl"
    whole, _ = decode.decode(TINY, part, tmp_path / "whole.jsonl", ["cpu"])
    lines = (tmp_path / "whole.jsonl").read_text(encoding="utf-8").split("\n")
    kept.write_text("\n".join(lines[:6]) + "\n" + lines[6][:20], encoding="utf-8")
    decoded: list[int] = []
    read = decode._recording
    monkeypatch.setattr(decode, "_recording", lambda job, row: (decoded.append(row), read(job, row))[1])
    again, seconds = decode.decode(TINY, part, kept, ["cpu"])
    assert again == whole
    already = {json.loads(line)["id"] for line in lines[:6]}
    ids = corpus.column("id")
    assert sorted(ids[row] for row in decoded) == sorted(set(ids) - already)
    assert seconds > 0


def test_several_devices_give_the_same_output_as_one(corpus: Corpus, tmp_path: Path) -> None:
    part = DecodeJob(corpus, range(len(corpus)))
    one, _ = decode.decode(TINY, part, tmp_path / "one.jsonl", ["cpu"])
    two, _ = decode.decode(TINY, part, tmp_path / "two.jsonl", ["cpu", "cpu"])
    for pair, other in zip(one, two, strict=True):
        assert replace(other, probabilities=()) == replace(pair, probabilities=())
        assert other.probabilities == pytest.approx(pair.probabilities, abs=1e-3)


def test_a_repeated_evaluation_decodes_nothing(
    small_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    first = commands.evaluate.run("tiny", [str(small_corpus)], out, EvaluationOptions(stress=2)).summary
    monkeypatch.setattr(decode, "_recording", lambda *_: pytest.fail("decoded again"))
    again = commands.evaluate.run("tiny", [str(small_corpus)], out, EvaluationOptions(stress=2)).summary
    assert again == first
    assert not out.with_name("out.work").exists()
    with pytest.raises(pytest.fail.Exception, match="decoded again"):
        commands.evaluate.run("tiny", [str(small_corpus)], out, EvaluationOptions(identify=True))


def test_stress_decodes_every_utterance_under_every_condition(small_corpus: Path, tmp_path: Path) -> None:
    outcome = commands.evaluate.run("tiny", [str(small_corpus)], tmp_path / "out", EvaluationOptions(stress=2))
    stress = outcome.summary["stress"]
    assert stress["conditions"].keys() == CONDITIONS.keys()
    assert {name for ways in stress["families"].values() for name in ways} == CONDITIONS.keys() - {"clean"}
    assert all(found["utterances"] == 2 for found in stress["conditions"].values())
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "WER on degraded audio" in page
    assert outcome.summary["utterances"] == 12  # the stress set is not in the score
    written = json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))
    assert written["stress"].keys() == stress.keys()


def test_other_languages_are_scored_separately(small_corpus: Path, tmp_path: Path) -> None:
    outcome = commands.evaluate.run(
        "tiny", [str(small_corpus)], tmp_path / "out", EvaluationOptions(limit=3, retention=[str(small_corpus)])
    )
    assert outcome.summary["retention"][str(small_corpus)]["Hebrew"]["utterances"] == 3
    assert outcome.summary["utterances"] == 3


def test_identify_reports_the_language_that_the_model_names(small_corpus: Path, tmp_path: Path) -> None:
    outcome = commands.evaluate.run(
        "tiny", [str(small_corpus)], tmp_path / "out", EvaluationOptions(limit=3, identify=True)
    )
    assert sum(outcome.summary["named"]["Hebrew"].values()) == 3
    told = commands.evaluate.run("tiny", [str(small_corpus)], tmp_path / "told", EvaluationOptions(limit=3))
    assert told.summary["named"] is None


def test_the_same_corpus_twice_is_refused(small_corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="are in two of the corpora"):
        commands.evaluate.run("tiny", [str(small_corpus)] * 2, tmp_path / "out")


def test_results_have_the_fields_for_breakdowns(small_corpus: Path, tmp_path: Path) -> None:
    commands.evaluate.run("tiny", [str(small_corpus)], tmp_path / "out")
    row = json.loads((tmp_path / "out" / RESULTS).read_text(encoding="utf-8").split("\n")[0])
    assert row["language"] == "Hebrew"
    assert row["snr_db"] is not None
    assert row["hits"] + row["substitutions"] + row["deletions"] == row["words"]
    content = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert content["corpora"][0]["fingerprint"] == report.fingerprint(small_corpus)


class Scripted:
    """Replaces a model: records the languages and the audio it gets."""

    def __init__(self) -> None:
        self.heard: list[np.ndarray] = []
        self.told: list[str | None] = []
        self.beams: set[int] = set()

    def transcribe_each(self, recordings: Iterable[Recording]) -> Iterator[tuple[int, Transcript]]:
        for number, recording in enumerate(recordings):
            self.heard.append(recording.samples)
            self.told.append(recording.language)
            self.beams.add(recording.decoding.beams)
            yield number, Transcript(f"שמעתי {number}", (), "Hebrew", 1.0, truncated=number == 0, retried=number < 2)


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Scripted:
    model = Scripted()
    monkeypatch.setattr(ModelHandle, "on", lambda self, device: model)
    return model


def test_truncated_and_retried_windows_are_counted(scripted: Scripted, small_corpus: Path, tmp_path: Path) -> None:
    found = commands.evaluate.run("tiny", [str(small_corpus)], tmp_path / "out").summary
    assert (found["truncated"], found["retried"]) == (1, 2)
    assert "cut off" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("identify", [False, True])
def test_the_language_is_given_unless_identify_is_set(
    scripted: Scripted, small_corpus: Path, tmp_path: Path, identify: bool
) -> None:
    found = commands.evaluate.run("tiny", [str(small_corpus)], tmp_path / "out", EvaluationOptions(identify=identify))
    assert set(scripted.told) == {None if identify else "Hebrew"}
    assert found.summary["named"] == ({"Hebrew": {"Hebrew": 12}} if identify else None)


def test_retention_scores_only_the_retention_corpora(scripted: Scripted, small_corpus: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(small_corpus, other)
    options = EvaluationOptions(retention=[str(other)], limit=7)
    found = commands.evaluate.run("tiny", [str(small_corpus)], tmp_path / "out", options).summary
    assert found["utterances"] == 7
    assert list(found["retention"]) == [str(other)]
    assert len(scripted.heard) == 14  # both were decoded, each under its own key


def test_a_changed_configuration_is_a_different_model(small_run: Path, small_corpus: Path, tmp_path: Path) -> None:
    """Its weights are the same, but results of the other configuration must not be reused."""
    model = tmp_path / "model"
    shutil.copytree(json.loads((small_run / "report.json").read_text())["final"], model)
    before = model_fingerprint(model)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"max_clip_seconds": 1.0}))
    assert model_fingerprint(model) != before
    (model / "config.json").write_text(json.dumps(config))
    (model / "README.md").write_text("another card")
    tokenizer = (model / "tokenizer.json").read_bytes()
    (model / "tokenizer.json").write_bytes(tokenizer + b" ")
    assert model_fingerprint(model) != before


def test_another_number_of_beams_is_decoded_anew(scripted: Scripted, small_corpus: Path, tmp_path: Path) -> None:
    for beams in (1, 4, 4):
        commands.evaluate.run(
            "tiny", [str(small_corpus)], tmp_path / "out", EvaluationOptions(decoding=DecodingOptions(beams))
        )
    assert scripted.beams == {1, 4}
    assert len(scripted.heard) == 24, "the third run decodes nothing"
