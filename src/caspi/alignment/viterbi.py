"""The most likely way through the letters of a text, given the probability of every letter in every frame.

The text of an hour has some 50,000 letters, and all of them in every frame would be 10^10 steps. So only a band of
letters is followed, whose middle goes along with the most likely one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from caspi.model.letters import FRAME_SECONDS, SILENCE

_IMPOSSIBLE = -1e30
# Speech without a transcript is as likely as the likeliest letter, less so much; more readily at the ends of a text,
# where words are often missing, than between its words. Without it the nearest letter is stretched over such speech.
_AT_THE_ENDS, _BETWEEN_WORDS = 1.5, 2.5
BAND = 4096  # letters and silences that are followed in a frame: some five minutes of speech


@dataclass(frozen=True, slots=True)
class WordPaths:
    """Of every word, float64 [words]: start and end in seconds; mean probability of its letters in its frames."""

    starts: np.ndarray
    ends: np.ndarray
    confidence: np.ndarray


def word_paths(log_probabilities: np.ndarray, spellings: Sequence[Sequence[int]], band: int = BAND) -> WordPaths | None:
    """log_probabilities [frames, classes]; spellings: classes of each word's letters. Every letter has at least one
    frame; between words there may be silence. None if there are more letters than frames."""
    states, first = _states(spellings)
    if sum(map(len, spellings)) > len(log_probabilities):
        return None
    path = _best_path(log_probabilities, states, _may_skip(len(states), first), band)
    words = len(spellings)
    # The word of every state; silence between words belongs to none.
    of_state = np.full(len(states), words)
    for word, (begin, spelling) in enumerate(zip(first, spellings, strict=True)):
        of_state[begin : begin + len(spelling)] = word
    of_frame = of_state[path]
    counts = np.bincount(of_frame, minlength=words + 1)[:words]
    probabilities = np.exp(log_probabilities[np.arange(len(path)), states[path]])
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


def untranscribed(states: np.ndarray) -> np.ndarray:
    """float64 [states]: how much less likely than the likeliest letter a frame is, at most, in the state of silence: it
    is also where speech is that the text does not have. Infinite for letters."""
    worse = np.where(states == SILENCE, _BETWEEN_WORDS, np.inf)
    worse[[0, -1]] = _AT_THE_ENDS
    return worse


def _best_path(log_probabilities: np.ndarray, states: np.ndarray, may_skip: np.ndarray, band: int) -> np.ndarray:
    """The state of every frame, int64 [frames], from the first or second state to one of the last two. states: their
    classes."""
    frames, width = len(log_probabilities), min(band, len(states))
    steps = np.zeros((frames, width), np.int8)  # number of states to go back
    lows = np.zeros(frames, np.int64)  # the first state of the band
    scores = np.full((3, width), _IMPOSSIBLE)  # that stay, come from the state before, and from the one before that
    loudest, worse = log_probabilities.max(axis=1), untranscribed(states)
    best = np.full(width, _IMPOSSIBLE)
    best[:2] = log_probabilities[0, states[:2]]
    best[0] = max(best[0], loudest[0] - worse[0])
    # From the last state of a band the end must be within reach, one letter a frame.
    letters_after = np.cumsum((states != SILENCE)[::-1])[::-1] - (states != SILENCE)
    needed = np.searchsorted(-letters_after, -np.arange(frames)[::-1])  # the first such state at each frame
    needed[-1] = len(states) - 1
    low = 0
    for frame in range(1, frames):
        before, middle = low, low + int(best.argmax())
        low = max(low, min(len(states) - width, max(middle - width // 2, int(needed[frame]) - width + 1)))
        lows[frame] = low
        padded = np.full(width + 2, _IMPOSSIBLE)  # scores of states low - 2 to low + width - 1
        from_, to = max(before, low - 2), min(before + width, low + width)
        padded[from_ - low + 2 : to - low + 2] = best[from_ - before : to - before]
        scores[0], scores[1] = padded[2:], padded[1:-1]
        scores[2] = np.where(may_skip[low : low + width], padded[:-2], _IMPOSSIBLE)
        step = scores.argmax(axis=0)
        steps[frame] = step
        in_band = slice(low, low + width)
        emissions = np.maximum(log_probabilities[frame, states[in_band]], loudest[frame] - worse[in_band])
        best = np.take_along_axis(scores, step[None], axis=0)[0] + emissions
    state = len(states) - (1 if best[-1] >= best[-2] else 2)
    path = np.empty(frames, np.int64)
    for frame in range(frames - 1, -1, -1):
        path[frame] = state
        state -= int(steps[frame, state - lows[frame]])
    return path
