from __future__ import annotations

import unicodedata

import hebrew as hebrew_package
import jiwer
import pytest
from hypothesis import given
from hypothesis import strategies as st

from caspi.corpus import hebrew_sentences
from caspi.corpus.espeak import phonemes
from caspi.language import TextPolicy, language
from caspi.language.hebrew import espeak_order, fair, leaderboard, script_share, training_text, without_niqqud

HEBREW_TEXT = st.text(
    alphabet=st.one_of(
        st.characters(min_codepoint=0x0590, max_codepoint=0x05F4),
        st.characters(min_codepoint=0xFB1D, max_codepoint=0xFB4F),
        st.sampled_from(" \n\t\"'׳״“”’.,!?-–()[]<>|0123456789abcXYZ\u200f\u202b\u2066\ufeff"),
        st.characters(exclude_categories=["Cs"]),
    ),
    max_size=60,
)


@pytest.mark.parametrize(
    ("policy", "before", "after"),
    [
        ({}, "שָׁלוֹם עוֹלָם", "שלום עולם"),
        ({}, "בֵּית־סֵפֶר", "בית־ספר"),  # the maqaf is punctuation inside the range of marks
        ({"maqaf": "space"}, "בֵּית־סֵפֶר", "בית ספר"),
        ({"maqaf": "hyphen"}, "בֵּית־סֵפֶר", "בית-ספר"),
        ({}, 'צה"ל', "צה״ל"),
        ({}, "צה”ל", "צה״ל"),
        ({}, "צה''ל", "צה״ל"),
        ({"quotes": "keep"}, 'צה"ל', 'צה"ל'),
        ({}, "ג'ירפה צ’ק", "ג׳ירפה צ׳ק"),
        ({}, "don't הוא אמר “כן”", 'don\'t הוא אמר "כן"'),
        ({}, "<|0.00|>שלום<|1.52|> עולם", "שלום עולם"),
        ({}, "\u202bשלום\u202c\u200f", "שלום"),
        ({}, "\ufb2aלום", "שלום"),  # shin with its dot as one character
        ({}, "  שלום \n עולם ", "שלום עולם"),
        ({"punctuation": "strip"}, "שלום, עולם! בית־ספר", "שלום עולם בית־ספר"),
        ({"niqqud": "keep"}, "שָׁלוֹם", "שָׁלוֹם"),
    ],
)
def test_training_text_follows_its_policy(policy: dict[str, str], before: str, after: str) -> None:
    assert training_text(before, TextPolicy(**policy)) == unicodedata.normalize("NFC", after)


@given(HEBREW_TEXT, st.sampled_from(["keep", "space", "hyphen"]), st.sampled_from(["strip", "keep"]))
def test_training_text_is_idempotent(text: str, maqaf: str, punctuation: str) -> None:
    policy = TextPolicy(maqaf=maqaf, punctuation=punctuation)
    once = training_text(text, policy)
    assert training_text(once, policy) == once


@given(st.text(alphabet=st.characters(min_codepoint=0x0590, max_codepoint=0x05F4), max_size=40))
def test_training_text_never_changes_the_letters(text: str) -> None:
    def letters(value: str) -> str:
        return "".join(c for c in value if "א" <= c <= "ת")

    def base(value: str) -> str:
        return value.translate(str.maketrans("ךםןףץ", "כמנפצ"))

    assert letters(training_text(text, TextPolicy(final_letters="keep"))) == letters(text)
    assert base(letters(training_text(text, TextPolicy()))) == base(letters(text))


@given(HEBREW_TEXT)
def test_leaderboard_treatment_equals_the_evaluators(text: str) -> None:
    """ivrit.ai's order: controls out, niqqud out by the package `hebrew`, ASCII quotes out, Whisper's normaliser."""
    for codes in ((0x61C, 0x61C), (0x200B, 0x200F), (0x202A, 0x202E), (0x2066, 0x2069), (0xFEFF, 0xFEFF)):
        text_out = text
        for code in range(codes[0], codes[1] + 1):
            text_out = text_out.replace(chr(code), "")
    expected = text
    for low, high in ((0x61C, 0x61C), (0x200B, 0x200F), (0x202A, 0x202E), (0x2066, 0x2069), (0xFEFF, 0xFEFF)):
        for code in range(low, high + 1):
            expected = expected.replace(chr(code), "")
    expected = str(hebrew_package.Hebrew(expected).no_niqqud()).replace('"', "").replace("'", "")
    assert leaderboard(text) == _whisper_basic(expected)


def _whisper_basic(text: str) -> str:
    """openai/whisper's BasicTextNormalizer()(text), written out from its description, ends stripped as jiwer does."""
    import re

    text = re.sub(r"[<\[][^>\]]*[>\]]", "", text.lower())
    text = re.sub(r"\(([^)]+?)\)", "", text)
    folded = unicodedata.normalize("NFKC", text)
    text = "".join(" " if unicodedata.category(c)[0] in "MSP" else c for c in folded).lower()
    return re.sub(r"\s+", " ", text).strip()


def test_leaderboard_keeps_its_known_oddity_and_fair_does_not() -> None:
    reference, hypothesis = 'צה"ל ניצח', "צה״ל ניצח"
    assert jiwer.process_words(leaderboard(reference), leaderboard(hypothesis)).wer > 0
    assert fair(reference) == fair(hypothesis) == "צהל ניצח"


@pytest.mark.parametrize("variant", ["בית־ספר", "בית-ספר", "בית ספר", "בֵּית־סֵפֶר!", "„בית ספר”"])
def test_fair_unifies_what_no_listener_hears(variant: str) -> None:
    assert fair(variant) == "בית ספר"


@given(HEBREW_TEXT)
def test_fair_is_idempotent(text: str) -> None:
    assert fair(fair(text)) == fair(text)


def test_script_share() -> None:
    assert script_share("שלום") == 1.0
    assert script_share("hello שלו") == pytest.approx(3 / 8)
    assert script_share("123") == 0.0


def test_other_languages_are_scored_too() -> None:
    assert language("Spanish").normalisers["leaderboard"]("¡Hola, [ruido] Señor!") == "hola señor"


def test_espeak_reads_every_demo_word_instead_of_spelling_it() -> None:
    spelled = [w for w in hebrew_sentences.VOCABULARY if "(en)" in phonemes(w, "he")]
    assert not spelled


def test_mark_order_decides_whether_espeak_reads_or_spells() -> None:
    canonical = unicodedata.normalize("NFC", "הַיֶּלֶד")
    assert "(en)" in phonemes(canonical, "he")
    assert "(en)" not in phonemes(espeak_order(canonical), "he")


def test_the_demo_has_at_least_200_words() -> None:
    assert len({without_niqqud(word) for word in hebrew_sentences.VOCABULARY}) >= 200
