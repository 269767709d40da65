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


def word_paths(
    log_probabilities: Sequence[np.ndarray], spellings: Sequence[Sequence[Sequence[int]]], band: int = BAND
) -> list[WordPaths | None]:
    """Of clips of about equal length, together. log_probabilities [frames, classes] of each; spellings: classes of each
    word's letters. Every letter has at least one frame; between words there may be silence. None if there are more
    letters than frames."""
    fit = [
        number
        for number, (scores, words) in enumerate(zip(log_probabilities, spellings, strict=True))
        if sum(map(len, words)) <= len(scores)
    ]
    found: list[WordPaths | None] = [None] * len(spellings)
    layouts = {number: _states(spellings[number]) for number in fit}
    long = [number for number in fit if len(layouts[number][0]) > band]
    for some in (*([number] for number in long), [number for number in fit if number not in long]):
        scores = [log_probabilities[number] for number in some]
        states, first = [layouts[number][0] for number in some], [layouts[number][1] for number in some]
        paths = _best_paths(scores, states, first, band) if some else []
        for number, path in zip(some, paths, strict=True):
            found[number] = _word_paths(log_probabilities[number], spellings[number], path, *layouts[number])
    return found


def _word_paths(
    log_probabilities: np.ndarray, spellings: Sequence[Sequence[int]], path: np.ndarray, states: np.ndarray,
    first: Sequence[int],
) -> WordPaths:  # fmt: skip
    """Of one clip. path: the state of every frame; states: their classes; first: of each word."""
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


def untranscribed(states: np.ndarray) -> np.ndarray:
    """float64 [states]: how much less likely than the likeliest letter a frame is, at most, in the state of silence: it
    is also where speech is that the text does not have. Infinite for letters."""
    worse = np.where(states == SILENCE, _BETWEEN_WORDS, np.inf)
    worse[[0, -1]] = _AT_THE_ENDS
    return worse


class _Grid:
    """The states of several clips, padded to the most: arrays [clips, states]. classes: of the states; worse: see
    `untranscribed`; skipped: 0 where a state may follow the one before the last, without the silence between two words,
    else the score of what is impossible."""

    def __init__(self, states: Sequence[np.ndarray], first: Sequence[list[int]]) -> None:
        shape = (len(states), max(map(len, states)))
        self.classes = np.zeros(shape, np.int64)
        self.worse = np.full(shape, np.inf)
        self.skipped = np.full(shape, _IMPOSSIBLE)
        for number, (one, begins) in enumerate(zip(states, first, strict=True)):
            self.classes[number, : len(one)] = one
            self.worse[number, : len(one)] = untranscribed(one)
            self.skipped[number, begins[1:]] = 0.0


def _best_paths(
    log_probabilities: Sequence[np.ndarray], states: Sequence[np.ndarray], first: Sequence[list[int]], band: int
) -> list[np.ndarray]:
    """The state of every frame of each clip, int64 [frames], from the first or second state to one of the last two.
    states: their classes; first: of each word. Only one clip may have more states than the band."""
    grid, scores = _Grid(states, first), _padded(log_probabilities)
    loudest = scores.max(axis=2, keepdims=True)
    frames, clips, _ = scores.shape
    count = grid.classes.shape[1]
    width = min(band, count)
    needed = _needed(states[0], frames)
    steps = np.zeros((frames, clips, width), np.int8)  # number of states to go back
    lows = np.zeros(frames, np.int64)  # the first state of the band
    lengths, ends = np.array([len(one) for one in log_probabilities]), np.array([len(one) for one in states])
    last = np.zeros(clips, np.int64)  # the state of each clip's last frame
    before = np.empty((clips, width + 2))  # scores of states low - 2 to low + width - 1, a frame ago
    best = np.full((clips, width), _IMPOSSIBLE)
    low = 0
    for frame in range(frames):
        shift = 0
        if width < count and frame:
            middle = low + int(best[0].argmax())
            following = max(low, min(count - width, max(middle - width // 2, int(needed[frame]) - width + 1)))
            low, shift = following, following - low
        lows[frame] = low
        in_band = slice(low, low + width)
        heard = np.take_along_axis(scores[frame], grid.classes[:, in_band], axis=1)
        emissions = np.maximum(heard, loudest[frame] - grid.worse[:, in_band])
        if frame == 0:
            best[:, :2] = emissions[:, :2]
        else:
            before.fill(_IMPOSSIBLE)
            kept = best[:, max(0, shift - 2) :]
            before[:, max(0, 2 - shift) :][:, : kept.shape[1]] = kept
            stays, follows = before[:, 2:], before[:, 1:-1]
            skips = before[:, :-2] + grid.skipped[:, in_band]
            best = np.maximum(stays, follows)
            step = (follows > stays).view(np.int8)
            step[skips > best] = 2
            steps[frame] = step
            best = np.maximum(best, skips) + emissions
        for clip in np.flatnonzero(lengths == frame + 1):
            end = int(ends[clip]) - low
            last[clip] = ends[clip] - (1 if best[clip, end - 1] >= best[clip, end - 2] else 2)
    return _walked_back(last, lengths, steps, lows)


def _padded(log_probabilities: Sequence[np.ndarray]) -> np.ndarray:
    """[frames of the longest, clips, classes]."""
    shape = (max(map(len, log_probabilities)), len(log_probabilities), log_probabilities[0].shape[1])
    padded = np.zeros(shape, log_probabilities[0].dtype)
    for number, one in enumerate(log_probabilities):
        padded[: len(one), number] = one
    return padded


def _needed(states: np.ndarray, frames: int) -> np.ndarray:
    """int64 [frames]: the first state from which the end is within reach, one letter a frame."""
    letters_after = np.cumsum((states != SILENCE)[::-1])[::-1] - (states != SILENCE)
    needed = np.searchsorted(-letters_after, -np.arange(frames)[::-1])
    needed[-1] = len(states) - 1
    return needed


def _walked_back(last: np.ndarray, lengths: np.ndarray, steps: np.ndarray, lows: np.ndarray) -> list[np.ndarray]:
    """The paths that end in the states `last`. steps [frames, clips, band]: number of states to go back."""
    frames, clips, _ = steps.shape
    every, state = np.arange(clips), last
    paths = np.empty((frames, clips), np.int64)
    for frame in range(frames - 1, -1, -1):
        paths[frame] = state
        state = np.where(frame < lengths, state - steps[frame, every, state - lows[frame]], state)
    return [paths[:length, number] for number, length in enumerate(lengths.tolist())]
