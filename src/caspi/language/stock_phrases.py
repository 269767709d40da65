"""Phrases that recognisers trained on subtitles write where nobody speaks."""

from __future__ import annotations

import functools

from caspi.language import language

_PHRASES: dict[str, tuple[str, ...]] = {
    "Hebrew": (
        "תודה רבה", "תודה", "תודה רבה על הצפייה", "תודה על הצפייה", "תודה שצפיתם", "להתראות", "נתראה בסרטון הבא",
        "אל תשכחו להירשם לערוץ", "מוזיקה", "מחיאות כפיים",
    ),
    "English": (
        "thank you", "thanks for watching", "thank you for watching", "please subscribe", "see you in the next video",
        "music", "applause", "you", "bye",
    ),
}  # fmt: skip
_CREDITS = ("כתוביות", "תרגום וכתוביות", "הביאה לצפייה ישירה", "subtitles by", "subtitles made by")
_MOST_WORDS_OF_CREDITS = 8


def is_stock_phrase(text: str, spoken: str) -> bool:
    """Whether a text is nothing but a stock phrase, once or more, or credits of subtitles. spoken: its language."""
    normalised = language(spoken).normalisers["fair"]
    said = normalised(text)
    if not said:
        return False
    if len(said.split()) <= _MOST_WORDS_OF_CREDITS and any(said.startswith(normalised(start)) for start in _CREDITS):
        return True
    return any(said.replace(phrase, "").strip() == "" for phrase in _normalised_phrases(spoken))


@functools.cache
def _normalised_phrases(spoken: str) -> tuple[str, ...]:
    normalised = language(spoken).normalisers["fair"]
    known = {*_PHRASES["English"], *_PHRASES.get(spoken, ())}
    return tuple(sorted(map(normalised, known), key=len, reverse=True))
