"""The interface of a language."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from caspi.config import Config

Normaliser = Callable[[str], str]


class TextPolicy(Config):
    """Switches of training text, recorded in every report."""

    niqqud: Literal["strip", "keep"] = "strip"
    maqaf: Literal["keep", "space", "hyphen"] = "keep"
    quotes: Literal["unify", "keep"] = "unify"
    punctuation: Literal["keep", "strip"] = "keep"


@dataclass(frozen=True, slots=True)
class Language:
    """name: as the prompt says it; code: ISO 639-1, as espeak and data sets say it.

    training_text: cleans a transcript under a policy, idempotent. normalisers: score name -> text treatment.
    script_share: share of a text's letters that are in the language's own script, 0 to 1.
    """

    name: str
    code: str
    training_text: Callable[[str, TextPolicy], str]
    script_share: Callable[[str], float]
    normalisers: dict[str, Normaliser] = field(default_factory=dict)
