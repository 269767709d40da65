"""Confidence of each word, from the probabilities of its tokens."""

from __future__ import annotations

import math
import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from caspi.model.prompt import Prompt
from caspi.model.timestamps import without_times

_WORD = re.compile(r"\S+")


@dataclass(frozen=True, slots=True)
class RecognisedWord:
    """A word of a transcript. probability: that the model gives to all tokens that spell it, after the words before;
    None where another program recognised it.
    start, end: in seconds of the recording; None where no aligner has found them."""

    text: str
    probability: float | None
    start: float | None = None
    end: float | None = None


def recognised_words(
    prompt: Prompt, tokens: Sequence[int], log_probabilities: Sequence[float]
) -> tuple[RecognisedWord, ...]:
    """The words of generated tokens, which begin with the language where the model names it, with the log-probability
    of each token. Timestamps are no part of a word."""
    start = prompt.text_start(tokens)
    pieces = [prompt.token_bytes(token) for token in tokens[start:]]
    ends = list(accumulate(map(len, pieces)))
    totals = [0.0, *accumulate(log_probabilities[start:])]
    # surrogateescape: an incomplete character at the end of a truncated text keeps its number of bytes
    text = b"".join(pieces).decode("utf-8", "surrogateescape")
    found = []
    byte, character = 0, 0
    for match in _WORD.finditer(text):
        written = without_times(match[0])
        first = byte + _size(text[character : match.start()])
        byte, character = first + _size(match[0]), match.end()
        if written:
            low, high = bisect_right(ends, first), bisect_left(ends, byte) + 1
            shown = written.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
            found.append(RecognisedWord(shown, math.exp(min(0.0, totals[high] - totals[low]))))
    return tuple(found)


def _size(text: str) -> int:
    return len(text.encode("utf-8", "surrogateescape"))
