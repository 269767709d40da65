"""How an epoch hears the corpus. What makes an utterance longer or shorter, or forbids it, is drawn for all of them at
once, because the plan must know how long they are; from (seed, epoch, what for) and row by row, so that a row has what
it has whatever rows come after it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from caspi.augmentation.config import Augmentation
from caspi.augmentation.waveform import TempoAndPadding
from caspi.model.features import CHUNK_FRAMES, FRAMES_PER_SECOND, TOKENS_PER_CHUNK

_ALL = 2**32  # no row has this number: what is drawn of all is apart from what is drawn of one


@dataclass(frozen=True, slots=True)
class EpochLengths:
    """Of every row of the corpus: seconds that are heard; tokens of the encoder, and of the decoder's sequence, audio
    included; stretches; whether its transcript has times, and whether noise is heard in its place. Neither of those
    two is stretched."""

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
        """The corpus as it is. text_tokens: of a sequence, beside its audio's."""
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
        """Of the corpus as it is: as an epoch's augmentation has it. What stays shares its arrays."""
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
        """What is done to the length of one utterance."""
        return TempoAndPadding(float(self.speed[row]), float(self.before[row]), float(self.after[row]))


def chosen(count: int, probability: float, seed: int, epoch: int, purpose: str) -> np.ndarray:
    """bool [count]: so many of the utterances, drawn for a purpose."""
    if not probability:
        return np.broadcast_to(np.False_, count)
    return np.asarray(_draw(seed, epoch, purpose).random(count) < probability)


def _draw(seed: int, epoch: int, purpose: str) -> np.random.Generator:
    return np.random.default_rng((seed, epoch, _ALL, *purpose.encode()))


def audio_tokens(seconds: np.ndarray) -> np.ndarray:
    """int64: of the encoder, for clips of so many seconds; one too many for some."""
    return np.ceil(seconds * FRAMES_PER_SECOND / CHUNK_FRAMES * TOKENS_PER_CHUNK).astype(np.int64)
