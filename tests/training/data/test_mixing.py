from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from caspi.errors import UsageError
from caspi.training.config import Mix, Share
from caspi.training.data.mixing import Mixer, quotas

SECONDS = np.random.default_rng(0).uniform(1, 15, 3_000)
SOURCES = [("knesset", "recital", "crowd")[n % 6 if n % 6 < 3 else 0] for n in range(3_000)]
ROWS = np.arange(3_000)


def mixer(mix: Mix, seed: int = 0) -> Mixer:
    return Mixer(mix, ROWS, SECONDS, SOURCES, seed)


def hours(rows: np.ndarray) -> dict[str, float]:
    found: Counter[str] = Counter()
    for row in rows.tolist():
        found[SOURCES[row]] += SECONDS[row] / 3600
    return dict(found)


def test_weights_are_shares_of_hours() -> None:
    found = hours(mixer(Mix(sources={"knesset": 0.5, "recital": 0.3, "crowd": 0.2})).epoch(0))
    total = SECONDS.sum() / 3600
    assert sum(found.values()) == pytest.approx(total, rel=0.01)
    assert found["knesset"] / total == pytest.approx(0.5, abs=0.01)
    assert found["recital"] / total == pytest.approx(0.3, abs=0.01)
    assert found["crowd"] / total == pytest.approx(0.2, abs=0.01)


def test_weights_may_be_shares_of_utterances() -> None:
    rows = mixer(Mix(sources={"knesset": 0.5, "crowd": 0.5}, by="utterances", size=1_000)).epoch(0)
    assert Counter(SOURCES[row] for row in rows) == {"knesset": 500, "crowd": 500}


@given(st.integers(0, 5), st.floats(0.05, 5))
def test_over_the_epochs_every_utterance_is_used_equally_often(seed: int, size: float) -> None:
    made = mixer(Mix(sources={"recital": 0.7, "crowd": 0.3}, size=size), seed)
    counts = Counter(np.concatenate([made.epoch(n) for n in range(5)]).tolist())
    for name in ("recital", "crowd"):
        used = [counts[row] for row in ROWS.tolist() if SOURCES[row] == name]
        assert max(used) - min(used) <= 1


def test_epochs_differ_and_are_reproducible() -> None:
    made = mixer(Mix(sources={"knesset": 1.0}, size=1.0))
    assert set(made.epoch(0)) & set(made.epoch(1)) == set()
    assert made.epoch(1).tolist() == mixer(Mix(sources={"knesset": 1.0}, size=1.0)).epoch(1).tolist()
    assert made.epoch(1).tolist() != mixer(Mix(sources={"knesset": 1.0}, size=1.0), seed=1).epoch(1).tolist()


def test_epochs_of_each_source() -> None:
    rows = mixer(Mix(sources={"recital": Share(epochs=2), "crowd": Share(epochs=1)})).epoch(0)
    counts = Counter(rows.tolist())
    assert {counts[row] for row in ROWS.tolist() if SOURCES[row] == "recital"} == {2}
    assert {counts[row] for row in ROWS.tolist() if SOURCES[row] == "crowd"} == {1}


def test_a_capped_source_gives_its_share_to_the_others() -> None:
    found = quotas(Mix(sources={"a": 0.5, "b": 0.3, "c": Share(weight=0.2, max_epochs=4)}), {"a": 80, "b": 15, "c": 1})
    assert found["c"] == 4
    assert found["a"] == pytest.approx(92 * 0.5 / 0.8)
    assert sum(found.values()) == pytest.approx(96)


def test_hours_of_a_source_can_be_capped() -> None:
    made = mixer(Mix(sources={"knesset": Share(weight=1.0, max_hours=0.5), "crowd": 1.0}))
    seen = {row for n in range(12) for row in made.epoch(n).tolist() if SOURCES[row] == "knesset"}
    assert sum(SECONDS[row] for row in seen) / 3600 == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(("temperature", "share"), [(1.0, 0.9), (2.0, 0.75), (1e6, 0.5)])
def test_temperature_evens_sources_out(temperature: float, share: float) -> None:
    found = quotas(Mix(sources={"a": Share(), "b": Share()}, temperature=temperature), {"a": 90.0, "b": 10.0})
    assert found["a"] / sum(found.values()) == pytest.approx(share, abs=1e-3)


@pytest.mark.parametrize(
    "wrong",
    [
        {"sources": {}},
        {"sources": {"a": 0}},
        {"sources": {"a": {"weight": 1, "epochs": 1}}},
        {"sources": {"a": {"epochs": 1}, "b": 0.5}},
        {"sources": {"a": {"epochs": 1}}, "size": 3},
        {"sources": {"a": 1}, "temperature": 0},
        {"sources": {"a": 0.5, "b": {}}},
    ],
)
def test_invalid_mixes_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Mix.model_validate(wrong)


def test_the_error_names_a_missing_source() -> None:
    with pytest.raises(UsageError, match="no utterances of kneset; it has crowd, knesset, recital"):
        mixer(Mix(sources={"kneset": 1.0}))


def test_only_allowed_rows_are_used() -> None:
    short = ROWS[SECONDS < 5]
    made = Mixer(Mix(sources={"knesset": 0.5, "crowd": 0.5}), short, SECONDS, SOURCES, 0)
    assert set(made.epoch(0).tolist()) <= set(short.tolist())
