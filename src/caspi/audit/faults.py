"""Faults that transcripts have in the wild, made on purpose: an audit is trusted only for kinds that it finds here."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from caspi.audio import SAMPLE_RATE
from caspi.language import language

ANOTHER = "another transcript"  # the grossest fault: models that do not find it find nothing
_CUT = 0.3  # share of the words that a cut takes
_FEWEST_TO_CUT = 4  # words
_FOREIGN = (
    "the weather was fine and we walked along the river for a long time before it got dark again "
    "she said that nobody had told her about the meeting so she did not know what to say to them"
).split()
_DIGITS = re.compile(r"\d+")


@dataclass(frozen=True, slots=True)
class Case:
    """A clip, float32 [n] at 16 kHz, with a text that may be its own. fault: the kind; "" for its own."""

    samples: np.ndarray
    text: str
    language: str
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What faults are made of. other: the text of another clip, of similar length; following: of the next clip of the
    same recording, "" if there is none; other_samples: of another clip."""

    other: str
    following: str
    other_samples: np.ndarray


_Fault = Callable[[Case, Surroundings, np.random.Generator], tuple[np.ndarray, str] | None]


def _words_cut(case: Case, *, first: bool) -> tuple[np.ndarray, str] | None:
    words = case.text.split()
    if len(words) < _FEWEST_TO_CUT:
        return None
    count = max(1, round(_CUT * len(words)))
    return case.samples, " ".join(words[count:] if first else words[:-count])


def _with_sentence(case: Case, around: Surroundings, _: np.random.Generator) -> tuple[np.ndarray, str] | None:
    added = around.other.split()[:8]
    return (case.samples, f"{case.text} {' '.join(added)}") if added else None


def _shifted(case: Case, around: Surroundings, seconds: float) -> tuple[np.ndarray, str] | None:
    """The clip begins too late, and ends in the audio of another."""
    shift = round(seconds * SAMPLE_RATE)
    if len(case.samples) < 3 * shift or len(around.other_samples) < shift:
        return None
    return np.concatenate([case.samples[shift:], around.other_samples[:shift]]), case.text


def _wrong_numbers(case: Case, _: Surroundings, draw: np.random.Generator) -> tuple[np.ndarray, str] | None:
    """Other digits, as many, and other number words of the same form."""
    known = language(case.language)

    def other(match: re.Match[str]) -> str:
        digits = [str((int(digit) + int(draw.integers(1, 10))) % 10) for digit in match[0]]
        return "".join(digits)

    def other_word(word: str) -> str:
        choices = known.other_numbers(word)
        return choices[int(draw.integers(len(choices)))] if choices else word

    text = _DIGITS.sub(other, " ".join(map(other_word, case.text.split())))
    return (case.samples, text) if text != " ".join(case.text.split()) else None


def _foreign(case: Case, _: Surroundings, draw: np.random.Generator) -> tuple[np.ndarray, str] | None:
    first = int(draw.integers(len(_FOREIGN)))
    count = len(case.text.split())
    return case.samples, " ".join(_FOREIGN[(first + n) % len(_FOREIGN)] for n in range(count))


FAULTS: dict[str, _Fault] = {
    ANOTHER: lambda case, around, _: (case.samples, around.other) if around.other else None,
    "the following transcript": lambda case, around, _: (case.samples, around.following) if around.following else None,
    "first words missing": lambda case, around, _: _words_cut(case, first=True),
    "last words missing": lambda case, around, _: _words_cut(case, first=False),
    "a sentence too many": _with_sentence,
    "audio 0.5 s late": lambda case, around, _: _shifted(case, around, 0.5),
    "audio 1 s late": lambda case, around, _: _shifted(case, around, 1.0),
    "wrong numbers": _wrong_numbers,
    "another language": _foreign,
}


def spoiled(case: Case, fault: str, around: Surroundings, draw: np.random.Generator) -> Case | None:
    """The case with a fault; None if it cannot have it, or would read the same."""
    made = FAULTS[fault](case, around, draw)
    if made is None:
        return None
    samples, text = made
    normalised = language(case.language).normalisers["fair"]
    if samples is case.samples and normalised(text) == normalised(case.text):
        return None
    return Case(samples, text, case.language, fault)


def texts_of_similar_length(texts: Sequence[str]) -> list[str]:
    """For every text, another one of the most similar length, so that length is no cue; "" if all are the same."""
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    others = [""] * len(texts)
    for place, index in enumerate(order):
        following = (texts[order[(place + step) % len(order)]] for step in range(1, len(order)))
        others[index] = next((text for text in following if text != texts[index]), "")
    return others
