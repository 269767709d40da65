"""The sample of an audit: strata, counts and weights."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caspi.audit.sampling import Sampling, sample


@dataclass
class Columns:
    """The columns of a corpus."""

    content: dict[str, list[Any]]

    def column(self, name: str) -> list[Any]:
        return self.content[name]

    def numbers(self, name: str) -> np.ndarray:
        return np.array(self.content[name], np.float64)


def columns(sizes: dict[str, int], seed: int = 0) -> Columns:
    draw = np.random.default_rng(seed)
    count = sum(sizes.values())
    return Columns({
        "source": [name for name, size in sizes.items() for _ in range(size)],
        "seconds": draw.lognormal(1.5, 0.6, count).tolist(),
        "text": ["x" * int(n) for n in draw.integers(1, 90, count)],
        "snr_db": draw.normal(25, 10, count).tolist(),
    })  # fmt: skip


@settings(max_examples=60)
@given(
    st.dictionaries(st.sampled_from(["a", "b", "c"]), st.integers(1, 900), min_size=1),
    st.sampled_from([0.01, 0.1, 0.5, 1.0]),
    st.integers(1, 400),
    st.integers(0, 99),
)
def test_weights_stand_for_the_whole_corpus(sizes: dict[str, int], share: float, at_least: int, seed: int) -> None:
    found = sample(columns(sizes, seed), Sampling(share=share, at_least=at_least, at_most=500))  # type: ignore[arg-type]
    assert len({one.row for one in found}) == len(found)
    for source, size in sizes.items():
        mine = [one for one in found if one.source == source]
        wanted = size if share == 1 else min(size, max(at_least, min(500, round(share * size))))
        assert abs(len(mine) - wanted) <= 1
        strata = defaultdict(float)
        for one in mine:
            strata[one.stratum] += one.weight
        if len(mine) >= 20:
            assert sum(strata.values()) == pytest.approx(size)


def test_a_sample_has_two_fifths_noisy_two_fifths_clean_and_a_fifth_unusual() -> None:
    corpus = columns({"a": 5000})
    found = sample(corpus, Sampling())  # type: ignore[arg-type]
    assert Counter(one.stratum for one in found) == {"noisy": 200, "clean": 200, "tail": 100}
    rate = np.array([len(text) for text in corpus.column("text")]) / corpus.numbers("seconds")
    snr, seconds = corpus.numbers("snr_db"), corpus.numbers("seconds")
    of = {name: [one.row for one in found if one.stratum == name] for name in ("noisy", "clean", "tail")}
    assert snr[of["noisy"]].max() < snr[of["clean"]].min()
    middle = slice(*np.quantile(seconds, [0.06, 0.94]))
    for row in of["tail"]:
        unusual = abs(np.log(max(rate[row], 1e-3)) - np.log(np.median(rate)))
        assert not middle.start < seconds[row] < middle.stop or unusual > 1.0


def test_the_same_seed_gives_the_same_sample() -> None:
    corpus = columns({"a": 2000})
    one, other = (sample(corpus, Sampling(seed=seed)) for seed in (1, 2))  # type: ignore[arg-type]
    assert one == sample(corpus, Sampling(seed=1))  # type: ignore[arg-type]
    assert one != other


def test_without_known_noise_everything_usual_is_clean() -> None:
    corpus = columns({"a": 500})
    corpus.content["snr_db"] = [float("nan")] * 500
    assert {one.stratum for one in sample(corpus, Sampling())} == {"clean", "tail"}  # type: ignore[arg-type]
