from __future__ import annotations

import pytest

from caspi.language import TextPolicy, language, named
from caspi.language.base import Language
from caspi.language.codes import CODES
from caspi.scoring.error_rates import score_corpus

LANGUAGES = [language(name) for name in CODES]


def wer(language_name: str, reference: str, hypothesis: str) -> tuple[float, float]:
    score = score_corpus([reference], [hypothesis], ["a"], [language(language_name)])["fair"]
    return score.wer, score.cer


def test_letters_keep_their_marks() -> None:
    """नमस्ते without its marks would be three words, and a wrong vowel would not be an error."""
    assert wer("Hindi", "नमस्ते दुनिया कैसे हैं", "नमस्ते दुनीया कैसे है") == (0.5, pytest.approx(2 / 22))
    assert wer("Hindi", "कमल", "किताब")[0] == 1


@pytest.mark.parametrize(
    ("language_name", "reference", "hypothesis"),
    [
        ("Arabic", "السَّلَامُ عَلَيْكُمْ", "السلام عليكم"),
        ("Turkish", "Iğdır İstanbul", "ığdır istanbul"),
        ("German", "STRASSE", "Straße"),
        ("Greek", "ΛΟΓΟΣ", "λόγος".replace("ό", "ο")),
        ("Spanish", "¿Qué tal?", "qué tal"),
        ("Spanish", "[risas] sí", "sí"),
        ("Persian", "می\u200cخواهم", "میخواهم"),
    ],
)
def test_usually_unwritten_marks_are_not_errors(language_name: str, reference: str, hypothesis: str) -> None:
    assert wer(language_name, reference, hypothesis) == (0, 0)


def test_a_wrong_spoken_vowel_or_accent_is_an_error() -> None:
    assert wer("Spanish", "el papá", "el papa")[0] == 0.5


@pytest.mark.parametrize(
    ("language_name", "reference", "hypothesis"),
    [("Chinese", "你好世界", "你号世界"), ("Japanese", "かがく", "かかく")],
)
def test_languages_without_spaces_count_characters(language_name: str, reference: str, hypothesis: str) -> None:
    assert language(language_name).unit == "character"
    assert wer(language_name, reference, hypothesis)[0] == pytest.approx(1 / len(reference))


def check_contract(tested: Language) -> None:
    """Cleaning and normalisers are idempotent, codes and names are one another's, rules are the policy's."""
    text = "  Speaker 1: <i>Aé</i> \u05e9\u05c1 İI 10% (laughter) &amp; [x] नमस्ते 你好, السَّلَامُ!! ♪ 00:01:02 "
    policy = TextPolicy()
    once = tested.training_text(text, policy)
    assert tested.training_text(once, policy) == once
    for treat in tested.normalisers.values():
        assert treat(treat(text)) == treat(text)
    for relax in tested.relaxations.values():
        treated = relax(tested.normalisers["fair"](text))
        assert relax(treated) == treated
    assert set(tested.normalisers) == {"leaderboard", "fair"}
    assert tested.standard
    assert tested.rules <= set(TextPolicy.model_fields)
    assert named(tested.code) == named(tested.name) == named(tested.name.upper()) == tested.name


@pytest.mark.parametrize("tested", LANGUAGES, ids=lambda tested: tested.name)
def test_every_language_keeps_its_contract(tested: Language) -> None:
    check_contract(tested)


@pytest.mark.parametrize("written", ["he", "HE", "he-IL", "he_IL", "heb", "iw", "hebrew", "Hebrew "])
def test_one_language_has_many_names(written: str) -> None:
    assert named(written) == "Hebrew"


@pytest.mark.parametrize("written", ["Klingon", "עברית", "Hebrew<asr_text>", "", "xx", "en language French"])
def test_an_unknown_language_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match="is not known"):
        named(written)


def test_every_language_of_the_released_model_is_known(real_tokenizer_folder) -> None:  # type: ignore[no-untyped-def]
    import json

    for name in json.loads((real_tokenizer_folder / "config.json").read_text())["support_languages"]:
        assert named(name) == name


def test_a_rule_that_a_language_does_not_have_is_refused() -> None:
    language("Spanish").check(TextPolicy(punctuation="strip", brackets="drop"))
    with pytest.raises(ValueError, match="maqaf: Spanish has no such rule; it has brackets, html"):
        language("Spanish").check(TextPolicy(maqaf="space"))
    with pytest.raises(ValueError, match="numbers: Spanish knows keep and reject, not spell"):
        language("Spanish").check(TextPolicy(numbers="spell"))
    language("Hebrew").check(TextPolicy(numbers="spell", maqaf="space"))


def test_general_rules_hold_in_any_language() -> None:
    clean = language("Spanish").training_text
    assert clean("[risas] ¡Hola!! (laughter) ♪", TextPolicy()) == "¡Hola!"
    assert clean("¡Hola!", TextPolicy(punctuation="strip")) == "Hola"
    assert language("Spanish").rejection_reason("tengo 3", TextPolicy(numbers="reject")) == "digits"
