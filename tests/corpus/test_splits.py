from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from caspi.corpus.splits import Splits, split_of


@given(st.lists(st.text(min_size=1), min_size=1, unique=True), st.integers(0, 5))
def test_growth_never_moves_a_group(groups: list[str], seed: int) -> None:
    shares = Splits(validation=0.2, test=0.2, seed=seed)
    before = {group: split_of(group, shares) for group in groups[: len(groups) // 2]}
    after = {group: split_of(group, shares) for group in groups}
    assert all(after[group] == split for group, split in before.items())


def test_shares_are_kept() -> None:
    shares = Splits(validation=0.1, test=0.2)
    found = [split_of(f"recording-{n}", shares) for n in range(20_000)]
    assert found.count("validation") / 20_000 == pytest.approx(0.1, abs=0.01)
    assert found.count("test") / 20_000 == pytest.approx(0.2, abs=0.01)


def test_nothing_left_to_train_on_is_an_error() -> None:
    with pytest.raises(ValidationError, match="leave nothing"):
        Splits(validation=0.5, test=0.5)
