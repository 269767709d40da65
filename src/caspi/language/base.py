"""The interface of a language."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, NewType

from caspi.config import Config

Normaliser = Callable[[str], str]


class TextPolicy(Config):
    """Switches for cleaning training text, recorded in every report. Each switch is one rule; all else is unchanged.

    niqqud: vowel points and cantillation. maqaf: the Hebrew hyphen U+05BE. sof_pasuq: U+05C3 becomes a full stop and
    paseq U+05C0 a space. quotes: geresh and gershayim, however typed, become ׳ and ״ in Hebrew words.
    punctuation: all of it; signs that are spoken (%, ₪) stay. repeated_punctuation: `!!!` becomes `!`.
    noise_tags: [...], <...>, {...}, *laughs*, #inaudible# and (laughter). brackets: round ones around other words:
    `unwrap` keeps the words, `drop` removes them. html: `&nbsp;` and the like. symbols: emoji, notes of music and
    other pictures. time_codes: 00:01:23. speaker_labels: `Speaker 1:` at the start of a line.
    numbers: `spell` spells out those with only one reading and rejects utterances with others; `reject`
    rejects utterances with digits. latin, mixed_words: utterances with Latin letters, or with both scripts in one word.
    filled_pauses: אה, אהמ, ממ. final_letters: `fix` makes שלומ שלום, and שלוםעולם two words; off by default, because a
    truncated word looks the same.
    """

    niqqud: Literal["strip", "keep"] = "strip"
    maqaf: Literal["keep", "space", "hyphen"] = "keep"
    sof_pasuq: Literal["keep", "plain"] = "keep"
    quotes: Literal["unify", "keep"] = "unify"
    punctuation: Literal["keep", "strip"] = "keep"
    repeated_punctuation: Literal["collapse", "keep"] = "collapse"
    noise_tags: Literal["drop", "keep"] = "drop"
    brackets: Literal["unwrap", "drop", "keep"] = "unwrap"
    html: Literal["unescape", "keep"] = "unescape"
    symbols: Literal["drop", "keep"] = "drop"
    time_codes: Literal["drop", "keep"] = "drop"
    speaker_labels: Literal["drop", "keep"] = "drop"
    numbers: Literal["keep", "spell", "reject"] = "keep"
    latin: Literal["keep", "reject"] = "keep"
    mixed_words: Literal["keep", "reject"] = "keep"
    filled_pauses: Literal["keep", "drop"] = "keep"
    final_letters: Literal["fix", "keep"] = "keep"


LookalikeReason = NewType("LookalikeReason", str)
TextReason = Literal["digits", "latin_letters", "mixed_script", "lost_letters", "visual_order"]


@dataclass(frozen=True, slots=True)
class ConfusableLetters:
    """Typical confusions of a language. alike: groups of letters that sound alike; prefixes: letters that are words
    attached to the next word; name_like: which of an utterance's words look like names or terms."""

    alike: tuple[str, ...] = ()
    prefixes: str = ""
    name_like: Callable[[Sequence[str]], list[bool]] = lambda words: [False] * len(words)


@dataclass(frozen=True, slots=True)
class Lookalike:
    """A language that uses the letters of another one and is mistaken for it. names: matches names of data sets in it;
    recognises: whether a text is in it."""

    name: str
    mistaken_for: str
    names: re.Pattern[str]
    recognises: Callable[[str], bool]

    @property
    def reason(self) -> LookalikeReason:
        """Why its transcripts are rejected: the language's name."""
        return LookalikeReason(self.name.lower())


@dataclass(frozen=True, slots=True)
class Language:
    """name: as in the prompt; code: ISO 639-1, as in espeak and data sets.

    training_text: cleans a transcript under a policy, idempotent. rejection_reason: why a cleaned
    transcript is not used for training under a policy, or None. rules: supported keys of the policy; values: supported
    values of a key, if not all. normalisers: score name -> text normalisation. standard: the origin of the
    normalisation of the score `leaderboard`. script_share: share of a text's letters in the language's own script, 0 to
    1. relaxations: differences that `fair` may ignore, name -> further normalisation of a text that `fair` has
    normalised. loses_points: whether a text without its vowel points has a non-standard spelling. unit: what error
    rates count, `word`, or `character` in languages written without spaces. right_to_left: of its script. lookalikes:
    languages that are refused where this one is expected.
    """

    name: str
    code: str
    training_text: Callable[[str, TextPolicy], str]
    rejection_reason: Callable[[str, TextPolicy], TextReason | None]
    script_share: Callable[[str], float]
    rules: frozenset[str]
    values: dict[str, tuple[str, ...]] = field(default_factory=dict)
    normalisers: dict[str, Normaliser] = field(default_factory=dict)
    standard: str = ""
    relaxations: dict[str, Normaliser] = field(default_factory=dict)
    ears: ConfusableLetters = ConfusableLetters()
    loses_points: Callable[[str], bool] = lambda text: False
    lookalikes: tuple[Lookalike, ...] = ()
    unit: Literal["word", "character"] = "word"
    right_to_left: bool = False

    def applied(self, policy: TextPolicy) -> dict[str, str]:
        """The part of a policy that applies to this language's text."""
        return {key: value for key, value in policy.model_dump().items() if key in self.rules}

    def check(self, policy: TextPolicy) -> None:
        """Raises ValueError if a policy sets a rule that the language does not have."""
        default = TextPolicy()
        for key in sorted(policy.model_fields_set):
            value = getattr(policy, key)
            if key not in self.rules and value not in ("keep", getattr(default, key)):
                raise ValueError(f"{key}: {self.name} has no such rule; it has {', '.join(sorted(self.rules))}")
            if value not in self.values.get(key, (value,)):
                raise ValueError(f"{key}: {self.name} knows {' and '.join(self.values[key])}, not {value}")
