from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from caspi import audio
from caspi.audit.audit import CAUTION, AuditConfig, _bounds, audit
from caspi.corpus.store import SCHEMA, Corpus, ShardWriter, row
from caspi.corpus.synthesis.espeak import Voice, speak
from caspi.corpus.utterance import Utterance
from caspi.model.config import ModelConfig
from caspi.model.loading import LoadedModel, load

WORDS = [
    "casa",
    "perro",
    "grande",
    "mesa",
    "libro",
    "noche",
    "playa",
    "ciudad",
    "amigo",
    "trabajo",
    "música",
    "comida",
    "agua",
    "puerta",
    "calle",
    "tiempo",
]


def spanish_corpus(folder: Path, spoiled: float, halved: float = 0.0) -> Corpus:
    """Forty sentences of a language that the base model knows; a share has a wrong transcript, or half of it."""
    draw = np.random.default_rng(0)
    texts = [" ".join(draw.choice(WORDS, 4)) for _ in range(40)]
    rows = []
    for number, text in enumerate(texts):
        said = speak(text, "es", Voice(["f3", "m1", "Alex"][number % 3], 160, 50))
        samples = audio.resample(said.samples, said.sample_rate)
        written = texts[(number + 7) % 40] if number < spoiled * 40 else text
        if number < halved * 40:
            written = " ".join(written.split()[:2])
        utterance = Utterance(f"u{number}", written, len(samples) / 16_000, "es", f"g{number}", "Spanish")
        rows.append(row(utterance, audio.encode_flac(samples)))
    writer = ShardWriter(folder, "train")
    writer.write(pa.RecordBatch.from_pylist(rows, schema=SCHEMA))
    writer.close()
    (folder / "report.json").write_text("{}")
    return Corpus.open(folder, "train")


@pytest.mark.parametrize("spoiled", [0.0, 0.1, 0.25, 0.6])
def test_the_bound_holds_for_any_share_of_wrong_transcripts(tiny: LoadedModel, tmp_path: Path, spoiled: float) -> None:
    found = audit(spanish_corpus(tmp_path, spoiled), tiny, AuditConfig())
    assert found.whole.at_most >= spoiled
    assert found.as_json()["low_quality_interval"] == (0.0, found.whole.at_most)
    assert found.decision == CAUTION
    worst = sorted(found.utterances, key=lambda u: u.wrong_text_loss - u.loss)[: int(spoiled * 40)]
    wrong = {f"u{n}" for n in range(int(spoiled * 40))}
    assert len({u.id for u in worst} & wrong) >= 0.7 * len(wrong)


@pytest.mark.parametrize("halved", [0.2, 1.0])
def test_missing_words_never_give_proceed(tiny: LoadedModel, tmp_path: Path, halved: float) -> None:
    """A fifth of the transcripts without half of their words once passed as 0.0 %."""
    found = audit(spanish_corpus(tmp_path, 0.0, halved=halved), tiny, AuditConfig())
    assert found.decision == CAUTION
    assert "missing or added words are not checked" in found.reason


@pytest.mark.parametrize("bad", [0.0, 0.05, 0.2, 0.5, 0.95, 1.0])
@pytest.mark.parametrize("able", [1.0, 2.0, 4.0])
def test_the_bound_holds_for_models_of_any_ability(bad: float, able: float) -> None:
    """Random losses: for right transcripts, the own loss is lower by `able` standard deviations."""
    held = 0
    for seed in range(40):
        draw = np.random.default_rng(seed)
        own = draw.normal(0, 1, 300) + able * (draw.random(300) < bad)
        table = np.stack([own, draw.normal(able, 1, 300), draw.normal(able, 1, 300)], axis=1)
        held += _bounds(table, seed).at_most >= bad
    assert held >= 36


def test_a_model_without_discernment_gives_only_caution(tmp_path: Path) -> None:
    """Trap: a fallback that invents scores when the aligner fails is worse than stopping."""
    ignorant = load(ModelConfig(start="tiny", init="random"))
    found = audit(spanish_corpus(tmp_path, 0.0), ignorant, AuditConfig())
    assert found.decision == CAUTION
    assert found.as_json()["low_quality_fraction"] is None
    assert found.whole.at_most > 0.5
