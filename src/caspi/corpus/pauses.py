"""Pauses that a corpus counts to its words: many know only where words start, so that each lasts until the next."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from caspi.audio import SAMPLE_RATE
from caspi.corpus.signals import QUIET_FRAME, quiet_frames
from caspi.corpus.utterance import Word


def without_pauses(words: Sequence[Word], samples: np.ndarray) -> tuple[Word, ...]:
    """The words of a clip, float32 [n], from where each begins to sound until it ends; a word in which nothing sounds
    stays as it is."""
    sounds = ~quiet_frames(samples)
    found = []
    for word in words:
        first, last = round(word.start * SAMPLE_RATE / QUIET_FRAME), round(word.end * SAMPLE_RATE / QUIET_FRAME)
        sounding = first + np.flatnonzero(sounds[first:last])
        if not len(sounding):
            found.append(word)
            continue
        start = max(word.start, int(sounding[0]) * QUIET_FRAME / SAMPLE_RATE)
        end = min(word.end, (int(sounding[-1]) + 1) * QUIET_FRAME / SAMPLE_RATE)
        found.append(Word(word.text, start, max(start, end)))
    return tuple(found)
