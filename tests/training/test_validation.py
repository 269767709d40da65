"""In-training validation: every utterance is scored by the rules of its language."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest

from caspi import audio, commands
from caspi.corpus.store import SCHEMA, Corpus, ShardWriter, row
from caspi.corpus.utterance import Utterance
from caspi.model.loading import LoadedModel
from caspi.scoring.error_rates import rate
from caspi.training.config import TrainConfig
from caspi.training.validation import Validation
from tests.conftest import tone

CONFIG = TrainConfig.model_validate({"path": "x", "stages": [{"name": "a", "groups": {"projector": 1e-3}}]})
SPOKEN = [("Hebrew", "שלום עולם, ד״ר כהן!"), ("Spanish", "¿Qué tal, señor?"), ("Hindi", "नमस्ते दुनिया")]


def corpus_of(folder: Path, split: str = "validation") -> Corpus:
    """One utterance per language. The Spanish one is shortest: a bug once applied its rules to all languages."""
    rows = []
    for number, (language, text) in enumerate(SPOKEN):
        seconds = 1.0 + (language != "Spanish")
        utterance = Utterance(f"u{number}", text, seconds, "s", f"g{number}", language)
        rows.append(row(utterance, audio.encode_flac(tone(seconds, seed=number))))
    writer = ShardWriter(folder, split)  # type: ignore[arg-type]
    writer.write(pa.RecordBatch.from_pylist(rows, schema=SCHEMA))
    writer.close()
    return Corpus.open(folder, split)  # type: ignore[arg-type]


def test_each_language_is_scored_by_its_rules_and_the_recipes_one_ranks(tiny: LoadedModel, tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text("{}")
    validation = Validation(corpus_of(tmp_path), tiny.prompt, CONFIG, None, "Hebrew")
    hypothesis_of = {"Hebrew": 'שלום עולם ד"ר כהן', "Spanish": "que tal señor", "Hindi": "नमस्ते दुनीया"}
    hypotheses = [hypothesis_of[validation._data.languages[row]] for row in validation._rows]
    counts, groups, by_language = validation._counts(hypotheses)
    assert len(groups) == len(counts.errors)
    assert by_language["Hebrew"] == rate(counts) == pytest.approx(0.4)  # the leaderboard's: ״ is a space, " is nothing
    assert by_language["Spanish"] == pytest.approx(1 / 3)
    assert by_language["Hindi"] == pytest.approx(1 / 2)
    other = Validation(Corpus.open(tmp_path, "validation"), tiny.prompt, CONFIG, None, "Spanish")
    assert rate(other._counts(hypotheses)[0]) == pytest.approx(1 / 3)
    neither = Validation(Corpus.open(tmp_path, "validation"), tiny.prompt, CONFIG, None, "Dutch")
    assert rate(neither._counts(hypotheses)[0]) == pytest.approx((2 + 1 + 1) / (5 + 3 + 2))


def test_a_data_set_card_names_the_languages_that_are_spoken(tmp_path: Path) -> None:
    content = {"stage": "prepare", "name": "x", "text_policy": {}, "hours_by_source": {"s": 1.0}, "licences": {}}
    (tmp_path / "report.json").write_text(json.dumps(content))
    corpus_of(tmp_path, "test")
    card = commands.corpus.push(tmp_path, "me/x", True, True).summary["card"]
    assert card.startswith("---\nlanguage:\n- es\n- he\n- hi\ntask_categories:")
