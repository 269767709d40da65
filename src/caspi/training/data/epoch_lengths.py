"""Lengths of the utterances in an epoch, after augmentation. Everything that changes an utterance's length, or forbids
a change, is drawn for all utterances at once, because the plan needs their lengths. Draws depend on (seed, epoch,
purpose) and go row by row, so that a row's values do not depend on later rows."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from caspi.augmentation.config import Augmentation
from caspi.augmentation.waveform import TempoAndPadding
from caspi.model.features import CHUNK_FRAMES, FRAMES_PER_SECOND, TOKENS_PER_CHUNK

_ALL = 2**32  # no row has this number: draws for all rows never share a seed with draws for one row


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
        one, none, no = (np.broadcast_to(value, count) for value in (1.0, 0.0, np.False_))
        return cls(seconds, tokens, tokens + text_tokens, one, none, none, no, no)

    def drawn(
        self,
        how: Augmentation,
        seed: int,
        epoch: int,
        *,
        timed: np.ndarray | None = None,
        no_speech: np.ndarray | None = None,
    ) -> EpochLengths:
        """Lengths with an epoch's augmentation, from those without. Unchanged arrays are shared."""
        found = self
        if timed is not None:
            found = replace(found, timed=timed)
        if no_speech is not None:
            found = replace(found, no_speech=no_speech)
        if not how.speed and how.silence is None:
            return found
        count, moved = len(self.seconds), ~(found.timed | found.no_speech)
        if how.speed:
            speed = _draw(seed, epoch, "speed").choice(how.speed, count)
            found = replace(found, speed=np.where(moved, speed, 1.0))
        if how.silence is not None:
            padded = moved & chosen(count, how.silence.probability, seed, epoch, "silence")
            around = _draw(seed, epoch, "silence seconds").uniform(*how.silence.seconds, (count, 2))
            before, after = np.where(padded[:, None], around, 0).astype(np.float32).T
            found = replace(found, before=before, after=after)
        seconds = self.seconds / found.speed + found.before + found.after
        tokens = audio_tokens(seconds)
        sequences = self.sequence_tokens - self.audio_tokens + tokens
        return replace(found, seconds=seconds, audio_tokens=tokens, sequence_tokens=sequences)

    def stretch(self, row: int) -> TempoAndPadding:
        """The changes to the length of one utterance."""
        return TempoAndPadding(float(self.speed[row]), float(self.before[row]), float(self.after[row]))


def chosen(count: int, probability: float, seed: int, epoch: int, purpose: str) -> np.ndarray:
    """bool [count]: which utterances are chosen, each with `probability`, for a purpose."""
    if not probability:
        return np.broadcast_to(np.False_, count)
    return np.asarray(_draw(seed, epoch, purpose).random(count) < probability)


def _draw(seed: int, epoch: int, purpose: str) -> np.random.Generator:
    return np.random.default_rng((seed, epoch, _ALL, *purpose.encode()))


def audio_tokens(seconds: np.ndarray) -> np.ndarray:
    """int64: tokens of the encoder for clips of these seconds; one too many for some."""
    return np.ceil(seconds * FRAMES_PER_SECOND / CHUNK_FRAMES * TOKENS_PER_CHUNK).astype(np.int64)
