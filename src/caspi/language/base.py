"""The interface of a language."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, NewType

from caspi.config import Config

Normaliser = Callable[[str], str]


class TextPolicy(Config):
    """Rules for cleaning training text, recorded in every report. Each key is one rule; all else is unchanged."""

    niqqud: Literal["strip", "keep"] = "strip"
    """`strip` removes vowel points and cantillation marks."""
    maqaf: Literal["keep", "space", "hyphen"] = "keep"
    """`space` or `hyphen` replaces the Hebrew hyphen (maqaf, U+05BE)."""
    sof_pasuq: Literal["keep", "plain"] = "keep"
    """`plain` replaces sof pasuq (U+05C3) by a full stop, and paseq (U+05C0) by a space."""
    quotes: Literal["unify", "keep"] = "unify"
    """`unify` writes geresh and gershayim in Hebrew words as ׳ and ״, however they were typed."""
    punctuation: Literal["keep", "strip"] = "keep"
    """`strip` removes all punctuation. Signs that are spoken, such as % and ₪, stay."""
    repeated_punctuation: Literal["collapse", "keep"] = "collapse"
    """`collapse` keeps one of several equal signs: `!!!` becomes `!`."""
    noise_tags: Literal["drop", "keep"] = "drop"
    """`drop` removes descriptions of sounds: `[...]`, `<...>`, `{...}`, `*laughs*`, `#inaudible#`, `(laughter)`."""
    brackets: Literal["unwrap", "drop", "keep"] = "unwrap"
    """What happens to round brackets around other words: `unwrap` keeps the words, `drop` removes them too."""
    html: Literal["unescape", "keep"] = "unescape"
    """`unescape` replaces HTML codes such as `&nbsp;` by their characters."""
    symbols: Literal["drop", "keep"] = "drop"
    """`drop` removes emoji, music notes and other pictures."""
    time_codes: Literal["drop", "keep"] = "drop"
    """`drop` removes times such as 00:01:23."""
    speaker_labels: Literal["drop", "keep"] = "drop"
    """`drop` removes labels such as `Speaker 1:` at the start of a line."""
    numbers: Literal["keep", "spell", "reject"] = "keep"
    """`spell` writes numbers in words if there is only one way to read them, and rejects utterances with other numbers;
    `reject` rejects all utterances with digits."""
    latin: Literal["keep", "reject"] = "keep"
    """`reject` rejects utterances with Latin letters."""
    mixed_words: Literal["keep", "reject"] = "keep"
    """`reject` rejects utterances in which one word has letters of both scripts."""
    filled_pauses: Literal["keep", "drop"] = "keep"
    """`drop` removes filled pauses: אה, אהמ, ממ."""
    final_letters: Literal["fix", "keep"] = "keep"
    """`fix` corrects final letters: שלומ becomes שלום, and שלוםעולם becomes two words. Off by default, because a word
    that was cut off looks the same."""


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
    normalised. loses_points: whether a text without its vowel points has a non-standard spelling. other_numbers: the
    other number words of the same form, none if a word is not a number word. unit: what error rates count, `word`,
    or `character` in languages written without spaces. right_to_left: of its script. lookalikes: languages that are
    refused where this one is expected.
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
    confusable_letters: ConfusableLetters = ConfusableLetters()
    loses_points: Callable[[str], bool] = lambda text: False
    other_numbers: Callable[[str], tuple[str, ...]] = lambda word: ()
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
