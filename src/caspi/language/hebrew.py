"""Hebrew: text to train on, text to score. No Hebrew rule stands anywhere else.

Points of the alphabet: U+0591-05AF cantillation, U+05B0-05BD and 05BF-05C7 vowels and dots, and among them
four characters that are punctuation, not marks: maqaf U+05BE, paseq U+05C0, sof pasuq U+05C3, nun hafukha U+05C6.
A range that swallows them glues words together (FACTS.md, traps).
"""

from __future__ import annotations

import re
import unicodedata

from caspi.language.base import Language, TextPolicy
from caspi.language.plain import whisper_basic, without_punctuation

MAQAF = "\u05be"
GERESH = "\u05f3"
GERSHAYIM = "\u05f4"

_LETTER = "\u05d0-\u05ea"
_MARKS = re.compile("[\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7]")
_CONTROLS = re.compile("[\u061c\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff\u00ad]")
_PRESENTATION = re.compile("[\ufb1d-\ufb4f]")
_TIME_MARK = re.compile(r"<\|\d+(?:\.\d+)?\|>")
_DOUBLE = '"\u201c\u201d\u201e\u201f\u2033\u05f4'
_SINGLE = "'\u2018\u2019\u201a\u201b\u2032`\u00b4\u05f3"
_INNER_DOUBLE = re.compile(f"(?<=[{_LETTER}])(?:[{_DOUBLE}]|[{_SINGLE}]{{2}})(?=[{_LETTER}])")
_AFTER_LETTER = re.compile(f"(?<=[{_LETTER}])[{_SINGLE}](?![{_SINGLE}])")
_OTHER_DOUBLE = re.compile(f"[{_DOUBLE}]")

# Order of marks in a cluster for espeak-ng: dagesh, then shin or sin dot, then the vowel. Unicode's canonical order
# puts the vowel first, and espeak then spells the letter out by name.
_ESPEAK_ORDER = {"\u05bc": 0, "\u05c1": 1, "\u05c2": 1}


def without_niqqud(text: str) -> str:
    """Vowel points and cantillation removed; maqaf, paseq and sof pasuq stay."""
    return _MARKS.sub("", text)


def espeak_order(text: str) -> str:
    """Marks of every letter in the order espeak-ng reads: letter, dagesh, shin or sin dot, vowel."""

    def reorder(match: re.Match[str]) -> str:
        return "".join(sorted(match[0], key=lambda mark: _ESPEAK_ORDER.get(mark, 2)))

    return re.sub("[\u05b0-\u05bd\u05bf\u05c1\u05c2\u05c7]{2,}", reorder, text)


def training_text(text: str, policy: TextPolicy) -> str:
    """A transcript as the model shall learn to write it. Idempotent; letters change only by a named rule."""
    text = _TIME_MARK.sub(" ", text)
    text = _PRESENTATION.sub(lambda match: unicodedata.normalize("NFKD", match[0]), text)
    text = _CONTROLS.sub("", unicodedata.normalize("NFC", text))
    if policy.niqqud == "strip":
        text = without_niqqud(text)
    if policy.maqaf != "keep":
        text = text.replace(MAQAF, " " if policy.maqaf == "space" else "-")
    if policy.quotes == "unify":
        text = _INNER_DOUBLE.sub(GERSHAYIM, text)
        text = _AFTER_LETTER.sub(GERESH, text)
        text = _OTHER_DOUBLE.sub(lambda match: match[0] if match[0] == GERSHAYIM else '"', text)
    if policy.punctuation == "strip":
        text = "".join(c if _is_part_of_a_word(c) else " " for c in text)
    return " ".join(text.split())


def _is_part_of_a_word(character: str) -> bool:
    return character in (MAQAF, GERESH, GERSHAYIM, "'", "-") or unicodedata.category(character)[0] not in "SP"


def script_share(text: str) -> float:
    """Share of the letters that are Hebrew; 0 where there is no letter."""
    letters = [c for c in text if c.isalpha()]
    return sum("\u05d0" <= c <= "\u05ea" for c in letters) / len(letters) if letters else 0.0


# What hebrew.Hebrew(text).no_niqqud() removes (PyPI `hebrew` 0.8.1): not cantillation, meteg or rafe.
_LEADERBOARD_REMOVED = re.compile(
    "[\u061c\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff\u05b0-\u05bc\u05c1\u05c2\u05c4\u05c5\u05c7\"']"
)


def leaderboard(text: str) -> str:
    """The text treatment of ivrit.ai's evaluator, exactly, oddities included.

    Delete bidi controls, niqqud as the package `hebrew` does, ASCII quotes; then Whisper's basic normaliser
    (openai/whisper, whisper/normalizers/basic.py). A typographic gershayim becomes a space where the ASCII one is
    deleted: that is theirs, and why `fair` stands beside it.
    """
    return whisper_basic(_LEADERBOARD_REMOVED.sub("", text))


def fair(text: str) -> str:
    """Spelling conventions that no listener can hear are unified (version 1).

    Niqqud, cantillation and controls go; geresh and gershayim, however typed, are deleted inside and after Hebrew
    words; maqaf and hyphens are spaces; other punctuation is a space; NFKC; lower case.
    """
    text = _CONTROLS.sub("", unicodedata.normalize("NFKC", text))
    text = _AFTER_LETTER.sub("", _INNER_DOUBLE.sub("", without_niqqud(text)))
    return without_punctuation(text)


LANGUAGE = Language(
    name="Hebrew",
    code="he",
    training_text=training_text,
    script_share=script_share,
    normalisers={"leaderboard": leaderboard, "fair": fair},
)
