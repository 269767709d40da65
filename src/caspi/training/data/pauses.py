"""Pauses that a corpus counts to its words: many know only where words start, so that each lasts until the next."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from caspi.audio import SAMPLE_RATE
from caspi.corpus.utterance import Word

_FRAME = SAMPLE_RATE // 50
_BELOW_SPEECH_DB = 30.0  # below the clip's loud frames
_SHORTEST = 5  # frames of a pause: a stop consonant is silent for less


def without_pauses(words: Sequence[Word], samples: np.ndarray) -> tuple[Word, ...]:
    """The words of a clip, float32 [n], from where each begins to sound until it ends; a word in which nothing sounds
    stays as it is."""
    sounds = ~_pauses(samples)
    found = []
    for word in words:
        first, last = round(word.start * SAMPLE_RATE / _FRAME), round(word.end * SAMPLE_RATE / _FRAME)
        sounding = first + np.flatnonzero(sounds[first:last])
        if not len(sounding):
            found.append(word)
            continue
        start = max(word.start, int(sounding[0]) * _FRAME / SAMPLE_RATE)
        end = min(word.end, (int(sounding[-1]) + 1) * _FRAME / SAMPLE_RATE)
        found.append(Word(word.text, start, max(start, end)))
    return tuple(found)


def _pauses(samples: np.ndarray) -> np.ndarray:
    """bool [frames of 20 ms]: inside a long quiet stretch."""
    frames = samples[: len(samples) // _FRAME * _FRAME].reshape(-1, _FRAME)
    if not len(frames):
        return np.zeros(0, bool)
    level = 10 * np.log10(np.square(frames, dtype=np.float64).mean(axis=1) + 1e-10)
    quiet = level < np.percentile(level, 95) - _BELOW_SPEECH_DB
    edges = np.flatnonzero(np.diff(quiet, prepend=False, append=False))
    for first, last in edges.reshape(-1, 2):
        if last - first < _SHORTEST:
            quiet[first:last] = False
    return quiet
