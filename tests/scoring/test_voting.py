"""Votes over several systems' words."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from caspi.scoring.voting import Heard, combined, heard_words, places


def system(text: str, *confidence: float) -> list[Heard]:
    return heard_words(text, confidence, str)


def said(words: list[Heard]) -> str:
    return " ".join(heard.word for heard in words)


def test_the_majority_wins() -> None:
    assert said(combined([system("אני הולך הביתה"), system("אני הולכת הביתה"), system("אני הולך הביתה")])) == (
        "אני הולך הביתה"
    )
    assert said(combined([system("a b c"), system("a c"), system("a c")])) == "a c", "a word that one alone heard"
    assert said(combined([system("a c"), system("a b c"), system("a b c")])) == "a b c", "a word that one missed"
    assert said(combined([system(""), system("a b"), system("a b")])) == "a b"


def test_two_systems_differ_by_confidence() -> None:
    assert said(combined([system("a x", 0.9, 0.3), system("a y", 0.9, 0.8)])) == "a y"
    assert said(combined([system("a x", 0.9, 0.8), system("a y", 0.9, 0.8)])) == "a x", "the first of equal ones"
    assert said(combined([system("a x", 0.9, 0.2), system("a", 0.9)])) == "a", "nothing is as likely as not"
    assert said(combined([system("a x", 0.9, 0.9), system("a", 0.9)])) == "a x"


def test_forms_are_compared_and_words_kept() -> None:
    found = combined([heard_words("Ab, C", (), str.lower), heard_words("ab, D", (), str.lower), system("ab, c")])
    assert said(found) == "Ab, C"
    assert heard_words("a - b", (0.5, 0.1, 0.7), lambda word: word.strip("-"))[1].confidence == 0.7


WORDS = st.lists(st.sampled_from("abcde"), max_size=8)


@given(st.lists(WORDS, min_size=1, max_size=4))
def test_every_word_of_every_system_has_one_place_in_order(texts: list[list[str]]) -> None:
    network = places([system(" ".join(text)) for text in texts])
    for number, text in enumerate(texts):
        assert [place[number].word for place in network if place[number] is not None] == text  # type: ignore[union-attr]
    assert all(len(place) == len(texts) and any(place) for place in network)


@given(WORDS, st.integers(1, 5))
def test_systems_that_agree_are_repeated(text: list[str], count: int) -> None:
    assert said(combined([system(" ".join(text))] * count)) == " ".join(text)


@given(st.lists(st.sampled_from("abcdefgh"), min_size=3, max_size=12, unique=True), st.data())
def test_errors_that_no_two_systems_share_are_outvoted(text: list[str], data: st.DataObject) -> None:
    """Three systems, each with one substitution at a place of its own."""
    wrong = data.draw(st.permutations(range(len(text))))[:3]
    heard = [[*text[:at], "x", *text[at + 1 :]] for at in wrong]
    for order in itertools.permutations(heard):
        assert said(combined([system(" ".join(words)) for words in order])) == " ".join(text)
