"""`caspi audit` on speech: real models, faults in the corpus, decisions, resuming."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from caspi import commands
from caspi.alignment.align import Aligner, AlignmentRequest
from caspi.audit.audit import AuditConfig
from caspi.audit.faults import FAULTS, Case
from caspi.audit.sampling import Sampling
from caspi.audit.signals import Listeners, Recogniser, Signals, alignment_signals, measured, text_signals
from caspi.errors import UsageError
from tests.audit.spoken import ALL, SIZE, Spoken, write_corpus


def corpus_of(folder: Path, sentences: list[Spoken], faulty: float) -> Path:
    """A corpus of which a share has the transcript of another utterance."""
    texts = [text for text, _, _ in sentences]
    wrong = round(faulty * SIZE)
    written = [*(texts[(number + 37) % SIZE] for number in range(wrong)), *texts[wrong:]]
    return write_corpus(folder, [(text, *one[1:]) for text, one in zip(written, sentences, strict=True)])


@pytest.mark.parametrize(("faulty", "decision", "code"), [(0.0, "PROCEED", 0), (0.4, "STOP", 3)])
def test_an_aligner_finds_transcripts_of_other_utterances(
    sentences: list[Spoken], tmp_path: Path, faulty: float, decision: str, code: int
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
    assert all((one["looks_like"] in FAULTS) == one["flagged"] for one in summary["utterances"])
    page = (tmp_path / "corpus-audit" / "report.html").read_text()
    assert page.count("<audio") == page.count('<svg class="waveform"') == 30


def test_a_recogniser_that_knows_nothing_judges_nothing(sentences: list[Spoken], tmp_path: Path) -> None:
    """`tiny` has never heard Hebrew."""
    corpus = corpus_of(tmp_path / "corpus", sentences[:SIZE], 0.0)
    few = AuditConfig(sampling=Sampling(share=0.01, at_least=32))
    outcome = commands.audit.run(corpus, None, ["tiny"], tmp_path / "out", few)
    summary = json.loads((tmp_path / "out" / "report.json").read_text())
    assert summary["decision"] == "CAUTION"
    assert outcome.exit_code == 0
    assert "another transcript" not in summary["seen"]


def test_after_a_kill_what_was_measured_is_not_measured_again(
    sentences: list[Spoken], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
    [cache] = (tmp_path / "out.work").glob("*.jsonl")
    whole = cache.read_text()
    cache.write_text(whole + whole[:40])  # killed while it wrote a line
    commands.audit.run(corpus, "tiny-aligner", [], tmp_path / "out", ALL)
    assert len(counts) == 2 + 1  # of two blocks, the first was done
    assert len(json.loads((tmp_path / "out" / "alignment_report.json").read_text())["utterances"]) == SIZE


def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="give --aligner, --asr or both"):
        commands.audit.run(tmp_path, None, [], None, ALL)


def test_signals_say_where_words_are_missing(sentences: list[Spoken]) -> None:
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


def test_the_loss_of_what_is_heard_is_that_of_a_forward_pass(tiny_spanish: tuple[np.ndarray, str]) -> None:
    case = Case(tiny_spanish[0], tiny_spanish[1], "Spanish")
    recogniser = Recogniser.of("tiny", "")
    [heard] = recogniser.heard([case])
    assert recogniser.losses([case], [heard.text]) == [pytest.approx(heard.loss, abs=1e-4)]


def test_a_clip_without_sound_has_no_loss_of_what_is_heard() -> None:
    [signals] = Recogniser.of("tiny", "").signals([Case(np.zeros(16_000, np.float32), "la casa", "Spanish")])
    assert "loss above that of the recognised text" not in signals
    assert signals["loss"] > 0


@pytest.fixture
def tiny_spanish() -> tuple[np.ndarray, str]:
    from tests.support import voice

    text = "la casa grande de mi amigo"
    return voice(text), text
