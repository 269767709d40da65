"""What the engine is asked for, and what it answers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from caspi.audio import SAMPLE_RATE, Seconds
from caspi.errors import UsageError
from caspi.inference.engine.words import RecognisedWord

# More than anyone can speak: Hebrew has about 4.4 tokens per second with the released tokenizer, 15 letter by letter.
TOKENS_PER_SECOND_LIMIT = 25
TOKENS_AT_LEAST = 32


@dataclass(frozen=True, slots=True)
class Sampling:
    """Random choice of tokens instead of the most likely one. top_p: only the most likely tokens that together have
    this probability (Holtzman et al. 2020, arXiv:1904.09751). seed: the same seed gives the same tokens, whatever is
    decoded beside them."""

    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class DecodeRequest:
    """A clip to transcribe: samples float32 [n] at 16 kHz.

    context: of the system turn. language: prefilled; None: the model identifies it. prefix: forced start of the text.
    max_tokens: None: more than anyone can speak in the clip's duration. min_tokens: the end of turn cannot come before.
    sampling: None: the most likely token. beams: of a beam search; 1: none. length_penalty: exponent of the length by
    which the scores of beams are divided; more than 1 prefers longer texts. no_loops: no token may make the text repeat
    itself (see loops.loops).
    """

    samples: np.ndarray
    context: str = ""
    language: str | None = None
    prefix: str = ""
    max_tokens: int | None = None
    min_tokens: int = 0
    sampling: Sampling | None = None
    beams: int = 1
    length_penalty: float = 1.0
    no_loops: bool = False

    def __post_init__(self) -> None:
        if min(self.limit, self.beams) < 1 or self.min_tokens < 0:
            raise UsageError("max_tokens and beams are at least 1, min_tokens at least 0")
        if self.sampling is not None and not (0 < self.sampling.top_p <= 1 and self.sampling.temperature >= 0):
            raise UsageError("top_p is above 0 and at most 1, temperature at least 0")
        if not np.isfinite(self.samples).all():
            raise UsageError("samples that are not finite numbers")
        if self.searched and self.sampling is not None:
            raise UsageError("a beam search does not sample: give beams, or no_loops, or sampling")

    @property
    def seconds(self) -> Seconds:
        return len(self.samples) / SAMPLE_RATE

    @property
    def searched(self) -> bool:
        """Whether a beam search decodes it; with one beam it takes the most likely tokens too."""
        return self.beams > 1 or self.no_loops

    @property
    def limit(self) -> int:
        """Maximum number of tokens."""
        if self.max_tokens is not None:
            return self.max_tokens
        return TOKENS_AT_LEAST + math.ceil(TOKENS_PER_SECOND_LIMIT * self.seconds)


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """A transcript of one clip. truncated: the token limit was reached before the end of turn. retried: it was
    reached, and the clip was split. guarded: the text repeated itself, and the clip was decoded again with that
    forbidden. silent: there was nothing to decode. temperature: at which its tokens were chosen.

    tokens: generated, with the end of turn. log_probabilities: of each token, whatever the sampling. text_start: tokens
    before the text, which name the language if it was not given. words: of the
    text, with probabilities, without timestamps. language_probability: of what the model answered about the language,
    "none" included; None if the language was given. score: of a beam search, the mean log-probability if
    length_penalty is 1; others: its further texts, best first.
    """

    text: str
    language: str | None
    truncated: bool
    retried: bool = False
    guarded: bool = False
    silent: bool = False
    temperature: float = 0.0
    tokens: tuple[int, ...] = ()
    log_probabilities: tuple[float, ...] = ()
    text_start: int = 0
    words: tuple[RecognisedWord, ...] = ()
    language_probability: float | None = None
    score: float = 0.0
    others: tuple[Hypothesis, ...] = ()
