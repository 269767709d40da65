"""The most likely way through the letters of a text, given the probability of every letter in every frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from caspi.model.letters import FRAME_SECONDS, SILENCE

_IMPOSSIBLE = -1e30


@dataclass(frozen=True, slots=True)
class WordPaths:
    """Of every word, float64 [words]: start and end in seconds; mean probability of its letters in its frames."""

    starts: np.ndarray
    ends: np.ndarray
    confidence: np.ndarray


def word_paths(log_probabilities: np.ndarray, spellings: Sequence[Sequence[int]]) -> WordPaths | None:
    """log_probabilities [frames, classes]; spellings: classes of each word's letters. Every letter has at least one
    frame; between words there may be silence. None if there are more letters than frames."""
    states, first = _states(spellings)
    if sum(map(len, spellings)) > len(log_probabilities):
        return None
    emissions = log_probabilities[:, states]
    path = _best_path(emissions, _may_skip(len(states), first))
    words = len(spellings)
    # The word of every state; silence between words belongs to none.
    of_state = np.full(len(states), words)
    for word, (begin, spelling) in enumerate(zip(first, spellings, strict=True)):
        of_state[begin : begin + len(spelling)] = word
    of_frame = of_state[path]
    counts = np.bincount(of_frame, minlength=words + 1)[:words]
    probabilities = np.exp(emissions[np.arange(len(path)), path])
    sums = np.bincount(of_frame, probabilities, minlength=words + 1)[:words]
    frames = np.arange(len(path))
    starts = np.full(words + 1, len(path))
    np.minimum.at(starts, of_frame, frames)
    return WordPaths(starts[:words] * FRAME_SECONDS, (starts[:words] + counts) * FRAME_SECONDS, sums / counts)


def _states(spellings: Sequence[Sequence[int]]) -> tuple[np.ndarray, list[int]]:
    """The classes of silence, word, silence, word, ..., silence; and the first state of each word."""
    states = [SILENCE]
    first = []
    for spelling in spellings:
        first.append(len(states))
        states += [*spelling, SILENCE]
    return np.array(states), first


def _may_skip(count: int, first: Sequence[int]) -> np.ndarray:
    """bool [states]: whether a state follows the one before the last, without the silence between two words."""
    may = np.zeros(count, bool)
    may[list(first[1:])] = True
    return may


def _best_path(emissions: np.ndarray, may_skip: np.ndarray) -> np.ndarray:
    """The state of every frame, int64 [frames], from the first or second state to one of the last two."""
    frames, states = emissions.shape
    steps = np.zeros((frames, states), np.int8)  # number of states to go back
    scores = np.full((3, states), _IMPOSSIBLE)  # that stay, come from the state before, and from the one before that
    best = np.full(states, _IMPOSSIBLE)
    best[:2] = emissions[0, :2]
    for frame in range(1, frames):
        scores[0] = best
        scores[1, 1:] = best[:-1]
        scores[2, 2:] = np.where(may_skip[2:], best[:-2], _IMPOSSIBLE)
        step = scores.argmax(axis=0)
        steps[frame] = step
        best = np.take_along_axis(scores, step[None], axis=0)[0] + emissions[frame]
    state = states - 1 if best[-1] >= best[-2] else states - 2
    path = np.empty(frames, np.int64)
    for frame in range(frames - 1, -1, -1):
        path[frame] = state
        state -= int(steps[frame, state])
    return path
