"""`caspi audit` on speech: real models, faults in the corpus, decisions, resuming."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from caspi import audio, commands
from caspi.alignment.align import Aligner, AlignmentRequest
from caspi.audit.audit import AuditConfig
from caspi.audit.faults import Case
from caspi.audit.sampling import Sampling
from caspi.audit.signals import Listeners, Recogniser, Signals, alignment_signals, measured, text_signals
from caspi.corpus.sources.synthetic import SyntheticSource
from caspi.corpus.store import SCHEMA, ShardWriter, row
from caspi.corpus.utterance import Utterance
from caspi.errors import UsageError

SIZE = 64  # two blocks


@pytest.fixture(scope="module")
def sentences() -> list[tuple[str, np.ndarray, str]]:
    """Texts, samples and voices of Hebrew sentences."""
    source = SyntheticSource(kind="synthetic", utterances=SIZE, seed=5, only=("m3", "f3", "Andrea"), rate=(140, 190))
    found = []
    for recording in source.recordings("Hebrew"):
        stream, _ = recording.audio.open()
        found.append((recording.text, np.concatenate(list(stream.blocks)), recording.group))
    return found


def corpus_of(folder: Path, sentences: list[tuple[str, np.ndarray, str]], faulty: float) -> Path:
    """A corpus of which a share has the transcript of another utterance."""
    rows = []
    for number, (text, samples, group) in enumerate(sentences):
        written = sentences[(number + 37) % SIZE][0] if number < faulty * SIZE else text
        utterance = Utterance(f"u{number}", written, len(samples) / 16_000, "spoken", group)
        rows.append(row(utterance, audio.encode_flac(samples)))
    folder.mkdir(parents=True)
    writer = ShardWriter(folder, "train")
    writer.write(pa.RecordBatch.from_pylist(rows, schema=SCHEMA))
    writer.close()
    (folder / "report.json").write_text('{"stage": "prepare"}')
    return folder


ALL = AuditConfig(sampling=Sampling(share=1.0))


@pytest.mark.parametrize(("faulty", "decision", "code"), [(0.0, "PROCEED", 0), (0.4, "STOP", 3)])
def test_an_aligner_finds_transcripts_of_other_utterances(
    sentences: list[tuple[str, np.ndarray, str]], tmp_path: Path, faulty: float, decision: str, code: int
) -> None:
    corpus = corpus_of(tmp_path / "corpus", sentences, faulty)
    outcome = commands.audit.run(corpus, "tiny-aligner", [], None, ALL)
    summary = json.loads((tmp_path / "corpus-audit" / "alignment_report.json").read_text())
    assert (summary["decision"], outcome.exit_code) == (decision, code)
    low, high = summary["low_quality_interval"]
    assert low - 0.02 <= faulty <= high + 0.02
    flagged = {utterance["id"] for utterance in summary["utterances"] if utterance["flagged"]}
    wrong = {f"u{n}" for n in range(round(faulty * SIZE))}
    assert len(flagged & wrong) >= 0.7 * len(wrong)  # of few utterances; the threshold is uncertain
    assert len(flagged - wrong) <= 0.1 * SIZE
    assert all(utterance["reasons"] for utterance in summary["utterances"] if utterance["flagged"])
    page = (tmp_path / "corpus-audit" / "report.html").read_text()
    assert page.count("<audio") == page.count('<svg class="waveform"') == 30


def test_a_recogniser_that_knows_nothing_judges_nothing(
    sentences: list[tuple[str, np.ndarray, str]], tmp_path: Path
) -> None:
    """`tiny` has never heard Hebrew."""
    corpus = corpus_of(tmp_path / "corpus", sentences[:SIZE], 0.0)
    few = AuditConfig(sampling=Sampling(share=0.01, at_least=32))
    outcome = commands.audit.run(corpus, None, ["tiny"], tmp_path / "out", few)
    summary = json.loads((tmp_path / "out" / "report.json").read_text())
    assert summary["decision"] == "CAUTION"
    assert outcome.exit_code == 0
    assert "another transcript" not in summary["seen"]


def test_after_a_kill_what_was_measured_is_not_measured_again(
    sentences: list[tuple[str, np.ndarray, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from caspi.audit import measurements

    corpus = corpus_of(tmp_path / "corpus", sentences, 0.0)
    counts: list[int] = []

    def counted(cases: list[Case], listeners: Listeners) -> list[Signals]:
        counts.append(len(cases))
        if len(counts) == 2:
            raise KeyboardInterrupt
        return measured(cases, listeners)

    monkeypatch.setattr(measurements, "measured", counted)
    with pytest.raises(KeyboardInterrupt):
        commands.audit.run(corpus, "tiny-aligner", [], tmp_path / "out", ALL)
    assert not (tmp_path / "out").exists()
    commands.audit.run(corpus, "tiny-aligner", [], tmp_path / "out", ALL)
    assert len(counts) == 2 + 1  # of two blocks, the first was done
    assert len(json.loads((tmp_path / "out" / "alignment_report.json").read_text())["utterances"]) == SIZE


def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="give --aligner, --asr or both"):
        commands.audit.run(tmp_path, None, [], None, ALL)


def test_signals_say_where_words_are_missing(sentences: list[tuple[str, np.ndarray, str]]) -> None:
    text, samples, _ = max(sentences, key=lambda one: len(one[0]))
    words = text.split()
    aligner = Aligner.of("tiny-aligner", "cpu")

    def of(written: str) -> dict[str, float]:
        [aligned] = aligner.align([AlignmentRequest(samples, written, "Hebrew")])
        return alignment_signals(Case(samples, written, "Hebrew"), aligned)

    own, first, last = of(text), of(" ".join(words[2:])), of(" ".join(words[:-2]))
    assert own["speech before the text"] < 0.1
    assert own["speech after the text"] < 0.1
    assert first["speech before the text"] > 0.3
    assert last["speech after the text"] > 0.3
    assert of("א " * 400)["words not in the audio"] == 1.0  # more letters than audio


def test_signals_of_a_recogniser(tiny_spanish: tuple[np.ndarray, str]) -> None:
    samples, text = tiny_spanish
    recogniser = Recogniser.of("tiny", " (1)")
    own, wrong, foreign = recogniser.signals(
        [Case(samples, text, "Spanish"), Case(samples, "agua fría del río", "Spanish"), Case(samples, text, "German")]
    )
    assert own["letters differ (1)"] < wrong["letters differ (1)"]
    assert own["loss (1)"] < wrong["loss (1)"]
    assert own["another language (1)"] == 0.0
    assert foreign["another language (1)"] == 1.0
    assert text_signals(Case(samples, "la la la la la la la la la la la la", "Spanish"))["repeats itself"] == 1.0


@pytest.fixture
def tiny_spanish() -> tuple[np.ndarray, str]:
    from tests.support import voice

    text = "la casa grande de mi amigo"
    return voice(text), text
