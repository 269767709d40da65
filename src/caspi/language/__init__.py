"""Rules for each language: how its text is cleaned for training and normalised for scoring.

To add a language, add a file here and one line in `_LANGUAGES`.
"""

from __future__ import annotations

from caspi.language import hebrew, plain
from caspi.language.base import Language, Lookalike, TextPolicy
from caspi.language.codes import named

_LANGUAGES: dict[str, Language] = {"Hebrew": hebrew.LANGUAGE}


def language(name: str) -> Language:
    """The language by its English name in the prompt; a language without its own file gets `plain`."""
    return _LANGUAGES.get(name) or plain.plain_language(name)


def lookalikes() -> tuple[Lookalike, ...]:
    """Languages that are mistaken for one that has a file of its own, whatever a source calls them."""
    return tuple(lookalike for rules in _LANGUAGES.values() for lookalike in rules.lookalikes)


__all__ = ["Language", "Lookalike", "TextPolicy", "language", "lookalikes", "named"]
