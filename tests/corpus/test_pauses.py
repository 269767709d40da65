"""Pauses that a corpus counts to its words."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from caspi.corpus.pauses import without_pauses
from caspi.corpus.utterance import Word


def sound(*stretches: tuple[bool, float]) -> np.ndarray:
    """Noise or near silence, for so many seconds each."""
    draw = np.random.default_rng(0)
    parts = [draw.standard_normal(round(s * 16_000)) * (0.1 if heard else 1e-4) for heard, s in stretches]
    return np.concatenate(parts).astype(np.float32)


def test_words_that_last_until_the_next_lose_their_pauses() -> None:
    samples = sound((False, 0.4), (True, 0.6), (False, 0.6), (True, 0.4))
    words = [Word("one", 0.0, 1.0), Word("two", 1.0, 2.0)]
    assert without_pauses(words, samples) == (Word("one", 0.4, 1.0), Word("two", 1.6, 2.0))


def test_the_silence_of_a_stop_consonant_stays_in_its_word() -> None:
    samples = sound((True, 0.3), (False, 0.06), (True, 0.04), (False, 0.06), (True, 0.54))
    assert without_pauses([Word("one", 0.0, 0.36), Word("two", 0.36, 1.0)], samples) == (
        Word("one", 0.0, 0.36), Word("two", 0.36, 1.0),
    )  # fmt: skip


def test_a_word_in_which_nothing_sounds_stays() -> None:
    assert without_pauses([Word("one", 0.2, 0.8)], sound((True, 0.1), (False, 1.0))) == (Word("one", 0.2, 0.8),)


@given(st.lists(st.tuples(st.booleans(), st.floats(0.0, 1.0)), min_size=1, max_size=8), st.data())
def test_words_shrink_and_keep_their_order(stretches: list[tuple[bool, float]], data: st.DataObject) -> None:
    samples = sound(*stretches)
    times = sorted(data.draw(st.lists(st.floats(0.0, len(samples) / 16_000), min_size=4, max_size=4)))
    words = [Word("a", *times[:2]), Word("b", *times[2:])]
    for before, after in zip(words, without_pauses(words, samples), strict=True):
        assert before.start <= after.start <= after.end <= max(before.end, after.start)
