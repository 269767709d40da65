"""The interface of a language."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from caspi.config import Config

Normaliser = Callable[[str], str]


class TextPolicy(Config):
    """Switches of training text, recorded in every report. Each names one rule; what no rule names stays as it is.

    niqqud: vowel points and cantillation. maqaf: the Hebrew hyphen U+05BE. quotes: geresh and gershayim, however
    typed, become ׳ and ״ in Hebrew words. punctuation: all of it. repeated_punctuation: `!!!` becomes `!`.
    noise_tags: [...], <...>, {...} and (laughter). brackets: what is left of them, around words that stay.
    numbers: `spell` writes out those that can be read in one way only and rejects utterances with others; `reject`
    rejects utterances with digits. latin, mixed_words: utterances with Latin letters, or with both scripts in one word.
    filled_pauses: אה, אהמ, ממ. final_letters: שלומ becomes שלום, and שלוםעולם two words.
    """

    niqqud: Literal["strip", "keep"] = "strip"
    maqaf: Literal["keep", "space", "hyphen"] = "keep"
    quotes: Literal["unify", "keep"] = "unify"
    punctuation: Literal["keep", "strip"] = "keep"
    repeated_punctuation: Literal["collapse", "keep"] = "collapse"
    noise_tags: Literal["drop", "keep"] = "drop"
    brackets: Literal["unwrap", "keep"] = "unwrap"
    numbers: Literal["keep", "spell", "reject"] = "keep"
    latin: Literal["keep", "reject"] = "keep"
    mixed_words: Literal["keep", "reject"] = "keep"
    filled_pauses: Literal["keep", "drop"] = "keep"
    final_letters: Literal["fix", "keep"] = "fix"


TextReason = Literal["yiddish", "digits", "latin_letters", "mixed_script"]


@dataclass(frozen=True, slots=True)
class Ears:
    """What is hard to hear in a language. alike: groups of letters that sound alike; prefixes: letters that are words
    of their own, written on the next one; name_like: which of an utterance's words look like names or terms."""

    alike: tuple[str, ...] = ()
    prefixes: str = ""
    name_like: Callable[[Sequence[str]], list[bool]] = lambda words: [False] * len(words)


@dataclass(frozen=True, slots=True)
class Language:
    """name: as the prompt says it; code: ISO 639-1, as espeak and data sets say it.

    training_text: cleans a transcript under a policy, idempotent. objection: why a cleaned
    transcript is not for training under a policy, or None. normalisers: score name -> text treatment.
    script_share: share of a text's letters that are in the language's own script, 0 to 1. relaxations: what `fair`
    may overlook besides, name -> treatment of a text that `fair` has treated. right_to_left: of its script.
    """

    name: str
    code: str
    training_text: Callable[[str, TextPolicy], str]
    objection: Callable[[str, TextPolicy], TextReason | None]
    script_share: Callable[[str], float]
    normalisers: dict[str, Normaliser] = field(default_factory=dict)
    relaxations: dict[str, Normaliser] = field(default_factory=dict)
    ears: Ears = Ears()
    right_to_left: bool = False
