from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from caspi.training.plan import plan_epoch


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(0.5, 30), min_size=1, max_size=200),
    st.integers(1, 32),
    st.floats(10, 120),
    st.integers(1, 4),
    st.integers(0, 3),
)
def test_a_plan_keeps_its_promises(lengths: list[float], batch: int, budget: float, ranks: int, epoch: int) -> None:
    seconds = np.array(lengths)
    plan = plan_epoch(seconds, effective_batch=batch, budget=budget, ranks=ranks, seed=0, epoch=epoch)
    rows = np.concatenate([plan.rows(step) for step in range(len(plan.steps))])
    assert len(set(rows.tolist())) == len(rows) == len(seconds) - plan.dropped
    assert plan.dropped < max(batch, 1)
    for number, step in enumerate(plan.steps):
        assert len(step) == ranks
        assert len(plan.rows(number)) == min(batch, len(seconds))
        for micro in (micro for rank in step for micro in rank):
            assert seconds[micro].sum() <= budget + 1e-6 or len(micro) == 1


def test_the_same_steps_whatever_the_number_of_ranks() -> None:
    seconds = np.random.default_rng(0).uniform(1, 15, 500)
    plans = [plan_epoch(seconds, effective_batch=32, budget=60, ranks=r, seed=1, epoch=2) for r in (1, 2, 8)]
    for step in range(len(plans[0].steps)):
        assert {frozenset(plan.rows(step).tolist()) for plan in plans} == {frozenset(plans[0].rows(step).tolist())}


def test_epochs_and_seeds_differ_and_repeat() -> None:
    seconds = np.random.default_rng(0).uniform(1, 15, 300)

    def first(seed: int, epoch: int) -> list[int]:
        return plan_epoch(seconds, effective_batch=16, budget=60, ranks=1, seed=seed, epoch=epoch).rows(0).tolist()

    assert first(0, 0) == first(0, 0)
    assert len({tuple(first(0, 0)), tuple(first(0, 1)), tuple(first(1, 0))}) == 3


def test_ranks_carry_equal_seconds() -> None:
    seconds = np.random.default_rng(0).lognormal(2.0, 0.6, 20_000).clip(1, 30)
    plan = plan_epoch(seconds, effective_batch=256, budget=240, ranks=8, seed=0, epoch=0)
    assert plan.imbalance < 0.03
