"""Lengths of the utterances in an epoch, after augmentation. All random values that change an utterance's length,
or forbid a change, are drawn for all utterances at once, because the plan needs their lengths. They depend on (seed,
epoch, purpose) and are drawn row by row, so that a row's values do not depend on later rows."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from caspi.augmentation.config import Augmentation
from caspi.augmentation.waveform import TempoAndPadding
from caspi.model.features import CHUNK_FRAMES, FRAMES_PER_SECOND, TOKENS_PER_CHUNK
from caspi.randomness import generator

_ALL_ROWS = 2**32  # no row has this number: random values for all rows have another seed than those for one row


@dataclass(frozen=True, slots=True)
class EpochLengths:
    """Of every row of the corpus: seconds after augmentation; tokens of the encoder, and of the decoder's sequence,
    audio included; speed, and silence before and after; timed: its transcript has times; no_speech: noise replaces it.
    The length of rows that are timed or no_speech does not change."""

    seconds: np.ndarray
    audio_tokens: np.ndarray
    sequence_tokens: np.ndarray
    speed: np.ndarray
    before: np.ndarray
    after: np.ndarray
    timed: np.ndarray
    no_speech: np.ndarray

    @classmethod
    def of(cls, seconds: np.ndarray, text_tokens: np.ndarray | int = 0) -> EpochLengths:
        """Lengths without augmentation. text_tokens: tokens of a sequence besides those of its audio."""
        count, tokens = len(seconds), audio_tokens(seconds)
        ones, zeros, false = (np.broadcast_to(value, count) for value in (1.0, 0.0, np.False_))
        return cls(seconds, tokens, tokens + text_tokens, ones, zeros, zeros, false, false)

    def augmented(
        self,
        config: Augmentation,
        seed: int,
        epoch: int,
        *,
        timed: np.ndarray | None = None,
        no_speech: np.ndarray | None = None,
    ) -> EpochLengths:
        """Lengths with an epoch's augmentation, from those without. Unchanged arrays are shared."""
        lengths = self
        if timed is not None:
            lengths = replace(lengths, timed=timed)
        if no_speech is not None:
            lengths = replace(lengths, no_speech=no_speech)
        if not config.speed and config.silence is None:
            return lengths
        count, may_change = len(self.seconds), ~(lengths.timed | lengths.no_speech)
        if config.speed:
            speed = _generator(seed, epoch, "speed").choice(config.speed, count)
            lengths = replace(lengths, speed=np.where(may_change, speed, 1.0))
        if config.silence is not None:
            is_padded = may_change & bernoulli_mask(count, config.silence.probability, seed, epoch, "silence")
            silences = _generator(seed, epoch, "silence seconds").uniform(*config.silence.seconds, (count, 2))
            before, after = np.where(is_padded[:, None], silences, 0).astype(np.float32).T
            lengths = replace(lengths, before=before, after=after)
        seconds = self.seconds / lengths.speed + lengths.before + lengths.after
        tokens = audio_tokens(seconds)
        sequences = self.sequence_tokens - self.audio_tokens + tokens
        return replace(lengths, seconds=seconds, audio_tokens=tokens, sequence_tokens=sequences)

    def tempo_and_padding(self, row: int) -> TempoAndPadding:
        """The changes to the length of one utterance."""
        return TempoAndPadding(float(self.speed[row]), float(self.before[row]), float(self.after[row]))


def bernoulli_mask(count: int, probability: float, seed: int, epoch: int, purpose: str) -> np.ndarray:
    """bool [count]: each True with `probability`. purpose: of the random numbers."""
    if not probability:
        return np.broadcast_to(np.False_, count)
    return np.asarray(_generator(seed, epoch, purpose).random(count) < probability)


def _generator(seed: int, epoch: int, purpose: str) -> np.random.Generator:
    return generator(seed, epoch, _ALL_ROWS, purpose)


def audio_tokens(seconds: np.ndarray) -> np.ndarray:
    """int64: tokens of the encoder for clips of these seconds; one too many for some."""
    return np.ceil(seconds * FRAMES_PER_SECOND / CHUNK_FRAMES * TOKENS_PER_CHUNK).astype(np.int64)
