"""Detects looping text: a model that no longer follows the audio repeats itself."""

from __future__ import annotations

import re

_WORDS = re.compile(r"(.{1,8}?)\1{3,}", re.DOTALL)  # each character encodes a word: the same 1 to 8 words, four times
_LETTERS = re.compile(r"(\S{1,6}?)\1{5,}")


def loops(text: str) -> bool:
    """Whether words, or letters in a word, are repeated more often than in speech."""
    numbers: dict[str, int] = {}
    coded = "".join(chr(0x100 + numbers.setdefault(word, len(numbers))) for word in text.split())
    return bool(_WORDS.search(coded) or _LETTERS.search(text))
