"""The words of a text that can be heard, for alignment, with their place in the text. Every letter and digit is in
exactly one of them; the splitter of Qwen3-ForcedAligner loses marks of Hebrew: צה"ל, ד״ר, בית־ספר, ב-2024."""

from __future__ import annotations

import itertools
import unicodedata
from dataclasses import dataclass

from caspi.language.markup import SPOKEN_SIGNS

_GERESH = "'׳"  # at the end of a word it marks a letter or an abbreviation (ג׳, וגו׳), or closes a quotation


@dataclass(frozen=True, slots=True)
class SpokenWord:
    """spoken: as an aligner reads it, without vowel points and outer punctuation. written: as in the text, with
    punctuation that stands alone after it."""

    spoken: str
    written: str


def spoken_words(text: str, unit: str = "word") -> list[SpokenWord]:
    """The words of a text in order; their written forms, joined with spaces, are the text. Punctuation that stands
    alone belongs to the word before it, or to the first. unit: as of a language; `character`: every letter of a script
    without spaces is a word of its own."""
    found: list[SpokenWord] = []
    before = ""
    for token in text.split():
        for written in _characters(token) if unit == "character" else [token]:
            spoken = spoken_form(written)
            if spoken:
                found.append(SpokenWord(spoken, f"{before}{written}"))
                before = ""
            elif found:
                found[-1] = SpokenWord(found[-1].spoken, f"{found[-1].written} {written}")
            else:
                before += f"{written} "
    return found


def spoken_form(word: str) -> str:
    """A written word without vowel points, cantillation, controls and outer punctuation; "" if it has no letter, digit
    or spoken sign."""
    kept = "".join(
        character
        for character in unicodedata.normalize("NFC", word)
        if not _is_hebrew_mark(character) and unicodedata.category(character) != "Cf"
    )
    first, last = 0, len(kept)
    while first < last and not _is_heard(kept[first]):
        first += 1
    while last > first and not _is_heard(kept[last - 1]):
        last -= 1
    if first < last < len(kept) and kept[last] in _GERESH and not (first and kept[first - 1] in _GERESH):
        last += 1
    return kept[first:last]


def _is_hebrew_mark(character: str) -> bool:
    return "\u0591" <= character <= "\u05c7" and unicodedata.category(character) == "Mn"


def _is_heard(character: str) -> bool:
    return character.isalnum() or character in SPOKEN_SIGNS or unicodedata.category(character).startswith("M")


def _characters(token: str) -> list[str]:
    """A token of a script without spaces: each of its letters with the marks and punctuation after it; what is in
    another script stays together."""
    pieces: list[str] = []
    for is_dense, group in itertools.groupby(token, key=lambda character: unicodedata.category(character) == "Lo"):
        letters = list(group)
        if is_dense:
            pieces += letters
        elif pieces and not any(map(str.isalnum, letters)):
            pieces[-1] += "".join(letters)
        else:
            pieces.append("".join(letters))
    return pieces
