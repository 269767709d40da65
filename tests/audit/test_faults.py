"""Faults that are made on purpose."""

from __future__ import annotations

import numpy as np
import pytest

from caspi.audit.faults import FAULTS, Case, Surroundings, spoiled, texts_of_similar_length

TEXT = "the child bought 12 red apples at the market"


def case(text: str = TEXT, seconds: float = 6.0) -> Case:
    return Case(np.arange(round(seconds * 16_000), dtype=np.float32), text, "English")


AROUND = Surroundings("another sentence about the weather", "what comes next", np.full(64_000, -1.0, np.float32))


def made(kind: str, own: Case, around: Surroundings = AROUND) -> Case | None:
    return spoiled(own, kind, around, np.random.default_rng(0))


@pytest.mark.parametrize("kind", FAULTS)
def test_every_kind_changes_the_text_or_the_audio_and_not_both(kind: str) -> None:
    own = case()
    found = made(kind, own)
    assert found is not None
    assert found.fault == kind
    assert (found.text != own.text) != (found.samples is not own.samples)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("another transcript", AROUND.other),
        ("the following transcript", AROUND.following),
        ("first words missing", "12 red apples at the market"),
        ("last words missing", "the child bought 12 red apples"),
        ("a sentence too many", f"{TEXT} {AROUND.other}"),
    ],
)
def test_texts(kind: str, text: str) -> None:
    found = made(kind, case())
    assert found is not None
    assert found.text == text


@pytest.mark.parametrize(("kind", "late"), [("audio 0.5 s late", 8_000), ("audio 1 s late", 16_000)])
def test_late_audio_ends_in_that_of_another_clip(kind: str, late: int) -> None:
    found = made(kind, case())
    assert found is not None
    assert len(found.samples) == 96_000
    assert found.samples[0] == late
    assert (found.samples[-late:] == -1).all()


def test_wrong_numbers_have_as_many_digits_and_none_is_right() -> None:
    found = made("wrong numbers", case())
    assert found is not None
    [before], [after] = ([w for w in text.split() if w.isdigit()] for text in (TEXT, found.text))
    assert len(after) == 2
    assert all(one != other for one, other in zip(before, after, strict=True))


def test_kinds_that_a_clip_cannot_have_are_left_out() -> None:
    assert made("wrong numbers", case("no digits here at all")) is None


def test_number_words_become_others_of_the_same_form() -> None:
    hebrew = Case(np.zeros(64_000, np.float32), "הילד קנה שלושה ספרים ב-12 שקלים", "Hebrew")
    found = made("wrong numbers", hebrew)
    assert found is not None
    before, after = hebrew.text.split(), found.text.split()
    assert [n for n in range(len(before)) if before[n] != after[n]] == [2, 4]
    assert after[2] in {"ארבעה", "חמישה", "שישה", "שבעה", "תשעה", "עשרה"}
    assert made("first words missing", case("only three words")) is None
    assert made("audio 1 s late", case(seconds=2.0)) is None
    assert made("the following transcript", case(), Surroundings("x", "", AROUND.other_samples)) is None
    assert made("another transcript", case("Same text"), Surroundings("same text!", "", AROUND.other_samples)) is None


def test_another_text_has_a_similar_length_and_is_not_the_same() -> None:
    texts = ["a", "bb", "bb", "ccc", "dddddddd", "eeeeeeee"]
    others = texts_of_similar_length(texts)
    assert all(one != other for one, other in zip(texts, others, strict=True))
    assert others[4] == "eeeeeeee"
    assert texts_of_similar_length(["same", "same"]) == ["", ""]
