"""Vowel points at random, for words of an open vocabulary.

espeak-ng reads Hebrew without vowel points almost without vowels. For most words the right points are not known. Random
ones still give every letter its sound and every syllable a vowel, which is what an aligner learns from, but the words
are not pronounced as they should be.
"""

from __future__ import annotations

import random

from caspi.language.hebrew import espeak_order

_DAGESH, _SHIN, _SIN = "\u05bc", "\u05c1", "\u05c2"
_SHEVA, _HIRIQ, _TSERE, _SEGOL = "\u05b0", "\u05b4", "\u05b5", "\u05b6"
_PATAH, _QAMATS, _HOLAM = "\u05b7", "\u05b8", "\u05b9"
# Without holam and qubuts, which espeak-ng spells out by name after some letters; o and u come with the letter vav.
_VOWELS = (_PATAH, _PATAH, _QAMATS, _SEGOL, _TSERE, _HIRIQ)
_HARD_OR_SOFT = "בכפ"  # a stop with dagesh, else a fricative
_GUTTURAL = "אהחע"  # never with a silent sheva here
_FINALS = "ךםןףץ"


def pointed(word: str, draw: random.Random) -> str:
    """A word of Hebrew letters with points, in the order that espeak-ng needs."""
    parts: list[str] = []
    needs_vowel = False  # whether the consonant before has none yet
    for place, letter in enumerate(word):
        is_last = place == len(word) - 1
        if letter in "וי" and needs_vowel and draw.random() < 0.75:
            parts.append(_vowel_letter(letter, draw))
            needs_vowel = False
            continue
        if needs_vowel:
            parts.append(_vowel(word[place - 1], draw, may_be_silent=not is_last and place > 1))
        parts.append(letter + _dot(letter, place, draw))
        needs_vowel = True
        if is_last and letter == "ה" and parts[:-1]:
            needs_vowel = False  # silent: the vowel of the letter before is drawn already
    return espeak_order("".join(parts))


def _vowel_letter(letter: str, draw: random.Random) -> str:
    """The marks of the consonant before, and the letter that writes its vowel."""
    if letter == "ו":
        return f"ו{draw.choice((_DAGESH, _HOLAM))}"
    return f"{draw.choice((_HIRIQ, _TSERE))}י"


def _vowel(letter: str, draw: random.Random, *, may_be_silent: bool) -> str:
    if may_be_silent and letter not in _GUTTURAL and draw.random() < 0.3:
        return _SHEVA
    return draw.choice(_VOWELS)


def _dot(letter: str, place: int, draw: random.Random) -> str:
    if letter == "ש":
        return _SHIN if draw.random() < 0.85 else _SIN
    if letter in _HARD_OR_SOFT and draw.random() < (0.9 if place == 0 else 0.3):
        return _DAGESH
    return ""
