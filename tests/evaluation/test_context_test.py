"""Tests of the context test: hotwords and other context in the system turn."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from caspi import commands
from caspi.corpus.store import Corpus
from caspi.errors import UsageError
from caspi.evaluation.context_test import BEFORE, EXPECTED, NOTHING, OTHERS, Words, context_conditions, words_recognised
from caspi.evaluation.decode import ModelHandle
from caspi.evaluation.options import EvaluationOptions
from caspi.evaluation.pairs import TranscriptPair
from caspi.evaluation.results import WordsRecognised, context_label
from caspi.inference.transcriber import Recording
from caspi.inference.transcripts import Transcript
from tests.conftest import tone
from tests.support import run_recipe, write_manifest


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve clips, each with its own name; some have a previous text, one has a context."""
    folder = tmp_path_factory.mktemp("names")
    letters = "אבגדהוזחטיכל"
    clips = [(tone(1.0, seed=n), f"שלום לכולם {letter * 2}תמר{letter} תודה") for n, letter in enumerate(letters)]
    write_manifest(folder, clips, previous="מה שנאמר קודם")
    source = f"{{kind: manifest, path: {folder}/m.jsonl, split: test}}"
    made = run_recipe(
        folder, folder / "corpus", f"corpus.sources=[{source}]", "corpus.evaluation=[]",
        "corpus.filters={max_repeats: 100}",
    )  # fmt: skip
    commands.prepare.run(made)
    return folder / "corpus"


def test_word_lists_mix_hotwords_and_distractors(corpus: Path) -> None:
    opened = Corpus.open(corpus, "test")
    found = context_conditions(opened, 8)
    assert len(found.words) == 8
    for row, words in enumerate(found.words):
        text = opened.utterance(row).text
        assert len(words.own) == 1, "the other words are in every clip"
        assert words.own[0] in text.split()
        assert not any(word in text for word in words.others)
        assert sorted(found.turns[EXPECTED][row].split(", ")) == sorted([*words.own, *words.others])
        assert found.turns[OTHERS][row] == ", ".join(words.others)
        assert found.turns[BEFORE][row] == "מה שנאמר קודם"
    places = {
        turn.split(", ").index(words.own[0]) for turn, words in zip(found.turns[EXPECTED], found.words, strict=True)
    }
    assert len(places) > 2, "the position of a word must not reveal it"
    assert context_conditions(opened, 12).words[:8] == found.words, "the list depends only on the utterance"


def test_a_part_of_a_word_is_not_the_word() -> None:
    pair = TranscriptPair(id="a", reference="תמר באה", hypothesis="התמרים באו, רמון", language="Hebrew")
    hotwords, distractors = words_recognised([pair], [Words(("תמר",), ("רמון", "מון"))])
    assert hotwords == WordsRecognised(words=1, heard=0)
    assert distractors == WordsRecognised(words=2, heard=1)


class Parrot:
    """Outputs its context as the transcript."""

    def transcribe_each(self, recordings: Iterable[Recording]) -> Iterator[tuple[int, Transcript]]:
        for number, recording in enumerate(recordings):
            yield number, Transcript(recording.context, (), None, 1.0, 0)


def test_every_utterance_gets_its_own_context(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ModelHandle, "on", lambda *_: Parrot())
    summary = commands.evaluate.run("tiny", [str(corpus)], tmp_path / "out", EvaluationOptions(context=8)).summary
    found = summary["context"]
    assert list(found) == [NOTHING, EXPECTED, OTHERS, BEFORE]
    assert {of["utterances"] for of in found.values()} == {8}
    assert summary["utterances"] == 12, "runs with context are not in the score"
    expected, others = found[NOTHING]["expected"]["words"], found[NOTHING]["others"]["words"]
    assert expected == 8
    assert 8 < others < 96
    counts = {shown: (of["expected"]["heard"], of["others"]["heard"]) for shown, of in found.items()}
    assert counts == {NOTHING: (0, 0), EXPECTED: (8, others), OTHERS: (0, others), BEFORE: (0, 0)}
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "Use of context" in page
    assert all(f"<td>{context_label(name)}</td>" in page and context_label(name) != name for name in found)
    assert f"{others:,} of {others:,}" in page


def test_a_real_model_runs_with_the_context_test(corpus: Path, tmp_path: Path) -> None:
    found = commands.evaluate.run("tiny", [str(corpus)], tmp_path / "out", EvaluationOptions(context=3)).summary[
        "context"
    ]
    assert {of["utterances"] for of in found.values()} == {3}
    assert all(of["expected"]["words"] == 3 for of in found.values())


def test_a_corpus_without_rare_words_is_an_error(tmp_path: Path) -> None:
    clips = [(tone(1.0, seed=n), "שלום לכולם") for n in range(6)]
    write_manifest(tmp_path, clips)
    with pytest.raises(UsageError, match=r"--context: no word is rare in corpus .*"):
        commands.evaluate.run("tiny", [str(tmp_path / "m.jsonl")], tmp_path / "out", EvaluationOptions(context=3))
