"""Which runs are ended early."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from caspi.search.halving import P_WORSE, RUNGS, Reached, is_worse, passed, pruned


def reached(rate: float, seed: int, utterances: int = 200, difficulty_seed: int = 0) -> Reached:
    """Errors of a run of this WER; utterances are as difficult in all runs."""
    difficulty = np.random.default_rng(difficulty_seed).gamma(1.0, 1.0, utterances)
    errors = np.random.default_rng(seed).poisson(np.clip(rate * difficulty, 0, 1) * 10)
    return Reached(tuple(errors.tolist()), (10,) * utterances, tuple(range(utterances)), rate)


@given(st.floats(0.01, 0.5), st.integers(0, 10_000))
def test_runs_that_are_clearly_worse_are_ended(rate: float, seed: int) -> None:
    others = {number: reached(rate, seed + number) for number in range(4)}
    worse = reached(1.5 * rate + 0.05, seed + 99)
    assert pruned(worse, others) is not None
    assert pruned(reached(0.5 * rate, seed + 98), {n: reached(rate + 0.1, seed + n) for n in range(4)}) is None


def test_runs_as_good_as_the_best_are_seldom_ended() -> None:
    """By chance at most as often as the level says, although two thirds are behind the best third."""
    ended = sum(
        pruned(reached(0.1, 10 * seed + 9), {n: reached(0.1, 10 * seed + n) for n in range(1)} | {
            n: reached(0.4, 10 * seed + n) for n in range(1, 3)
        }) is not None
        for seed in range(300)
    )  # fmt: skip
    assert ended / 300 < 2 * P_WORSE


def test_the_first_runs_and_the_best_third_go_on() -> None:
    assert pruned(reached(0.9, 1), {}) is None
    assert pruned(reached(0.9, 1), {0: reached(0.1, 2)}) is None
    others = {number: reached(0.1 * number, number) for number in range(1, 7)}
    assert pruned(reached(0.05, 99), others) is None
    assert "worse than run 1" in (pruned(reached(0.95, 99), others) or "")


def test_equal_errors_are_no_difference() -> None:
    same = reached(0.2, 1)
    assert is_worse(same, same) == 1.0
    assert is_worse(same, reached(0.2, 2, utterances=7)) == 1.0, "other utterances cannot be compared"


@given(st.floats(0, 1), st.floats(0, 1))
def test_every_rung_is_passed_once(middle: float, other: float) -> None:
    ends = [0.0, *sorted((middle, other)), 1.0]
    numbers = [rung for before, now in itertools.pairwise(ends) for rung in passed(before, now)]
    assert numbers == list(range(len(RUNGS)))
