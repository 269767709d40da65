from __future__ import annotations

import itertools
import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from caspi.alignment.times import in_order, nearest_rising, slot_times
from caspi.model.aligner import LoadedAligner
from caspi.model.alignment import BIN_SECONDS


@given(st.lists(st.integers(0, 5), min_size=1, max_size=6))
def test_no_series_that_does_not_fall_is_nearer(values: list[int]) -> None:
    found = nearest_rising(np.array(values, float))
    assert (np.diff(found) >= 0).all()
    best = min(
        sum(abs(a - b) for a, b in zip(values, series, strict=True))
        for series in itertools.combinations_with_replacement(range(6), len(values))
    )
    assert float(np.abs(found - values).sum()) == best


@given(st.lists(st.floats(-1.0, 12.0), min_size=1, max_size=20))
def test_times_are_in_order_and_every_larger_change_is_marked(pairs: list[float]) -> None:
    seconds = np.array([time for pair in pairs for time in (pair, pair + 0.1)])
    ordered = in_order(seconds, 10.0)
    times = np.stack([ordered.starts, ordered.ends], axis=1).ravel()
    assert (np.diff(times) >= 0).all()
    assert times.min() >= 0
    assert times.max() <= 10
    moved = (np.abs(times - seconds) > BIN_SECONDS).reshape(-1, 2).any(axis=1)
    assert (ordered.repaired == moved).all()


def test_only_the_time_that_is_out_of_order_moves() -> None:
    ordered = in_order(np.array([1.0, 2.0, 9.0, 3.0, 4.0, 5.0]), 10.0)
    assert ordered.repaired.tolist() == [False, True, False]
    assert ordered.starts.tolist() == [1.0, 3.0, 4.0]
    assert ordered.ends.tolist() == [2.0, 3.0, 5.0]


def test_an_hour_of_words_is_put_in_order_at_once() -> None:
    seconds = np.random.default_rng(0).uniform(0, 3600, 40_000)
    started = time.process_time()
    in_order(seconds, 3600.0)
    assert time.process_time() - started < 1


def test_a_time_is_the_mean_around_the_best_bin(aligner: LoadedAligner) -> None:
    """Two bins of the same probability: the time is between them; a far third bin has no part in it."""
    logits = torch.full((2, aligner.prompt.bins), -30.0)
    logits[0, [10, 11]] = 0.0
    logits[1, 40], logits[1, 90] = 0.0, -1.0
    found = slot_times(logits, aligner.prompt)
    assert found.seconds.tolist() == pytest.approx([0.84, 3.2])
    assert found.confidence[0] == pytest.approx(1.0)
    assert found.confidence[1] == pytest.approx(1 / (1 + np.exp(-1)))
    assert found.entropy[0] == pytest.approx(np.log(2))
