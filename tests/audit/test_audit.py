from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from caspi import audio
from caspi.audit.audit import CAUTION, PROCEED, STOP, AuditConfig, audit, wilson
from caspi.corpus.espeak import Voice, speak
from caspi.corpus.store import SCHEMA, Corpus, ShardWriter, row
from caspi.corpus.utterance import Utterance
from caspi.model.config import ModelConfig
from caspi.model.loading import Loaded, load

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


def spanish_corpus(folder: Path, spoiled: float) -> Corpus:
    """Forty sentences of a language the base knows; a share of them has another one's transcript."""
    draw = np.random.default_rng(0)
    texts = [" ".join(draw.choice(WORDS, 4)) for _ in range(40)]
    rows = []
    for number, text in enumerate(texts):
        said = speak(text, "es", Voice(["f3", "m1", "Alex"][number % 3], 160, 50))
        samples = audio.resample(said.samples, said.sample_rate)
        written = texts[(number + 7) % 40] if number < spoiled * 40 else text
        utterance = Utterance(f"u{number}", written, len(samples) / 16_000, "es", f"g{number}", "Spanish")
        rows.append(row(utterance, audio.encode_flac(samples)))
    writer = ShardWriter(folder, "train")
    writer.write(pa.RecordBatch.from_pylist(rows, schema=SCHEMA))
    writer.close()
    (folder / "report.json").write_text("{}")
    return Corpus.open(folder, "train")


@pytest.mark.parametrize(("spoiled", "decision"), [(0.0, PROCEED), (0.25, CAUTION), (0.6, STOP)])
def test_spoiled_transcripts_are_found(tiny: Loaded, tmp_path: Path, spoiled: float, decision: str) -> None:
    # With most transcripts wrong no corpus can show that the model judges well, so the bar is lowered for that case.
    config = AuditConfig(min_discernment=0.5 if spoiled > 0.5 else 0.8)
    found = audit(spanish_corpus(tmp_path, spoiled), tiny, config)
    assert found["decision"] == decision, found["reason"]
    low, high = found["low_quality_interval"]
    assert low <= found["low_quality_fraction"] <= high
    flagged = {u["id"] for u in found["utterances"] if u["low_quality"]}
    wrong = {f"u{n}" for n in range(int(spoiled * 40))}
    assert len(flagged ^ wrong) <= 6


def test_a_model_that_cannot_judge_says_so_and_invents_nothing(tmp_path: Path) -> None:
    """Trap: a fallback that invents scores when the aligner fails is worse than stopping."""
    ignorant = load(ModelConfig(start="tiny", init="random"))
    found = audit(spanish_corpus(tmp_path, 0.0), ignorant, AuditConfig())
    assert found["decision"] == CAUTION
    assert "cannot judge" in found["reason"]
    assert found["low_quality_fraction"] is None
    assert found["low_quality_interval"] is None
    assert all(u["low_quality"] is None for u in found["utterances"])


@given(st.integers(0, 200), st.integers(1, 200))
def test_wilson_interval_holds_the_share(count: int, total: int) -> None:
    count = min(count, total)
    low, high = wilson(count, total)
    assert 0 <= low <= count / total + 1e-12
    assert count / total - 1e-12 <= high <= 1
