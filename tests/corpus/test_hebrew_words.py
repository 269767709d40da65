"""Hebrew words with vowel points at random, for synthetic speech of an open vocabulary."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from caspi.corpus.sources import synthetic
from caspi.corpus.sources.synthetic import SyntheticSource
from caspi.corpus.synthesis.espeak import SPELLED, Voice, phonemes, speak
from caspi.corpus.synthesis.hebrew_words import pointed
from caspi.language.hebrew import without_niqqud

WORDS = "שלום ספר ילדה מחשב וילון דירה תפוח הולכים ירושלים בוקר".split()


@given(st.text("אבגדהוזחטיכלמנסעפצקרשתךםןףץ", min_size=1, max_size=10), st.integers())
def test_letters_stay_and_the_points_are_drawn(word: str, seed: int) -> None:
    found = pointed(word, random.Random(seed))
    assert without_niqqud(found) == word
    assert found == pointed(word, random.Random(seed))


def test_most_words_are_read_and_not_spelled() -> None:
    draw = random.Random(0)
    spelled = sum(SPELLED in phonemes(pointed(word, draw), "he") for word in WORDS * 10)
    assert spelled <= 6


def test_sentences_of_frequent_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic, "frequent_words", lambda *_, **__: [*WORDS, "latin"])
    source = SyntheticSource(kind="synthetic", utterances=12, seed=3, frequent_words=True)
    found = list(source.recordings("Hebrew"))
    assert {word.strip(",") for recording in found for word in recording.text.split()} <= set(WORDS)
    assert any("," in recording.text for recording in found)
    stream, words = found[0].audio.open()
    assert [word.text for word in words] == found[0].text.split()
    assert np.concatenate(list(stream.blocks)).any()


def test_only_for_hebrew() -> None:
    with pytest.raises(ValidationError, match="only for Hebrew"):
        SyntheticSource(kind="synthetic", utterances=1, frequent_words=True, languages=("Spanish",))


def test_a_pause_belongs_to_no_word() -> None:
    speech = speak("שָׁלוֹם, עוֹלָם", "he", Voice("m3", 120))
    assert speech.word_starts[1] - speech.word_ends[0] > 0.15
    silent = speech.samples[
        int(speech.word_ends[0] * speech.sample_rate) : int(speech.word_starts[1] * speech.sample_rate)
    ]
    assert np.abs(silent).max() < 1e-3
