from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caspi.language.spoken_words import spoken_form, spoken_words

TEXTS = st.text(st.sampled_from("שלוםתךabé12 \"'׳״־-.,!?%₪()\u05b8\u05bc中語…"), max_size=30)


@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        ("בית־ספר", "בית־ספר"), ("ד״ר", "ד״ר"), ('צה"ל', 'צה"ל'), ("ב-2024", "ב-2024"), ("3.5%", "3.5%"),
        ("שָׁלוֹם,", "שלום"), ("(עולם)", "עולם"), ('"אבא"', "אבא"), ("'אבא'", "אבא"),
        ("ג׳ירפה", "ג׳ירפה"), ("וגו׳", "וגו׳"),
        ("COVIDכזה", "COVIDכזה"), ("הַבַּ֫יִת׃", "הבית"), ("100₪", "100₪"), ("-", ""), ("…", ""),
    ],
)  # fmt: skip
def test_marks_inside_of_words_stay(written: str, spoken: str) -> None:
    assert spoken_form(written) == spoken


@given(TEXTS)
def test_the_written_forms_are_the_text(text: str) -> None:
    words = spoken_words(text)
    if any(spoken_form(token) for token in text.split()):
        assert " ".join(word.written for word in words) == " ".join(text.split())
    else:
        assert words == []


@given(TEXTS, st.sampled_from(["word", "character"]))
def test_no_letter_and_no_digit_is_lost(text: str, unit: str) -> None:
    heard = "".join(word.spoken for word in spoken_words(text, unit))
    plain = unicodedata.normalize("NFC", text)
    assert [c for c in heard if c.isalnum()] == [c for c in plain if c.isalnum()]


def test_punctuation_that_stands_alone_belongs_to_a_word() -> None:
    assert [(word.spoken, word.written) for word in spoken_words("- שלום – עולם !")] == [
        ("שלום", "- שלום –"), ("עולם", "עולם !"),
    ]  # fmt: skip


def test_a_script_without_spaces_is_split_into_letters() -> None:
    assert [word.spoken for word in spoken_words("我是AI，好。", "character")] == ["我", "是", "AI", "好"]
