"""Detects looping text: a model that no longer follows the audio repeats itself."""

from __future__ import annotations

import re

# Each character encodes a word: the same 1 to 8 words, four times.
_REPEATED_WORDS = re.compile(r"(.{1,8}?)\1{3,}", re.DOTALL)
_REPEATED_LETTERS = re.compile(r"(\S{1,6}?)\1{5,}")


def loops(text: str) -> bool:
    """Whether words, or letters in a word, are repeated more often than in speech."""
    word_ids: dict[str, int] = {}
    encoded = "".join(chr(0x100 + word_ids.setdefault(word, len(word_ids))) for word in text.split())
    return bool(_REPEATED_WORDS.search(encoded) or _REPEATED_LETTERS.search(text))
