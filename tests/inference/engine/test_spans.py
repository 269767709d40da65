from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from caspi.inference.engine.spans import Spans


@given(st.integers(1, 200), st.lists(st.tuples(st.integers(1, 60), st.integers(0, 9)), max_size=60))
def test_spans_never_overlap_and_come_back_whole(size: int, actions: list[tuple[int, int]]) -> None:
    """Every action takes a span, and gives back one of those in use now and then."""
    spans = Spans(size)
    used: list[tuple[int, int]] = []
    for length, which in actions:
        if (start := spans.take(length)) is not None:
            assert start >= 0
            assert start + length <= size
            assert all(start + length <= other or other + n <= start for other, n in used)
            used.append((start, length))
        if which < len(used):
            spans.give_back(*used.pop(which))
        assert spans.free == size - sum(n for _, n in used)
    for span in used:
        spans.give_back(*span)
    assert spans.take(size) == 0
