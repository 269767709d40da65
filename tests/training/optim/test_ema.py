from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from caspi.training.optim.ema import Ema


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=30), st.floats(0.5, 0.9999))
def test_the_average_equals_its_definition(values: list[float], decay: float) -> None:
    parameter = torch.nn.Parameter(torch.zeros(3, dtype=torch.float64))
    average = Ema({"p": parameter}, decay)
    expected = 0.0
    for step, value in enumerate(values, 1):
        parameter.data.fill_(value)
        average.update(step)
        now = min(decay, (1 + step) / (10 + step))
        expected = now * expected + (1 - now) * value
    assert torch.allclose(average.values["p"], torch.full((3,), expected, dtype=torch.float64))


def test_using_the_average_in_place_changes_nothing() -> None:
    torch.manual_seed(0)
    parameter = torch.nn.Parameter(torch.randn(1000))
    average = Ema({"p": parameter}, 0.9)
    parameter.data += torch.randn(1000) * 1e-3
    average.update(1)
    before, mean = parameter.detach().clone(), average.values["p"].clone()
    with average.in_place():
        assert torch.equal(parameter, mean)
    assert torch.equal(parameter, before)
    assert torch.equal(average.values["p"], mean)
