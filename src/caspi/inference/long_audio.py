"""Recordings of any length as windows with speech, none longer than the training clips, cut at the quietest places."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.ndimage import maximum_filter1d

from caspi.audio import SAMPLE_RATE, Seconds
from caspi.inference.speech_detection import FRAME, FRAME_SECONDS, SpeechDetector
from caspi.model.files import max_clip_seconds

MAX_WINDOW: Seconds = 30.0
LONGEST_PAUSE: Seconds = 2.0  # inside of what is recognised together
_SEARCH_SHARE = 2 / 3  # of a window: the cut is in this last part
_HOP = SAMPLE_RATE // 50  # 20 ms
_SIMILAR_ENERGY = 2.0  # 3 dB: pauses within this ratio are equally quiet
_PAUSE_ENERGY = 0.1  # of the window's median energy, -10 dB: anything louder is not a pause
_SHORT_SMOOTHING = 5  # hops, 100 ms
_BESIDE = _SHORT_SMOOTHING // 2  # hops
_LONG_SMOOTHING = 15  # hops, 300 ms: a shorter quiet part is not a pause
_BEYOND = _LONG_SMOOTHING * _HOP  # samples after a window that are heard to cut it


def longest_window(config: Mapping[str, Any]) -> Seconds:
    """Of a model, from the content of its config.json: no longer than the clips it was trained on."""
    return min(MAX_WINDOW, max_clip_seconds(config) or MAX_WINDOW)


@dataclass(frozen=True, slots=True)
class Window:
    """A part of a recording: float32 samples [n] at 16 kHz, from its sample `first` on. speech: mean probability of
    speech in it; None if it is not known. shared: samples at its start that the window before it has too, because
    there was no pause to cut in; continues: whether the next one begins before this one ends."""

    first: int
    samples: np.ndarray
    speech: float | None = None
    shared: int = 0
    continues: bool = False

    @property
    def start(self) -> Seconds:
        return self.first / SAMPLE_RATE

    @property
    def end(self) -> Seconds:
        return (self.first + len(self.samples)) / SAMPLE_RATE


def windows(samples: np.ndarray, max_seconds: Seconds = MAX_WINDOW) -> list[tuple[int, int]]:
    """(first, last) sample of every window, in order, without gap or overlap, none longer than `max_seconds`. See
    `_next_cut`."""
    max_samples = int(max_seconds * SAMPLE_RATE)
    cuts = [0]
    while len(samples) - cuts[-1] > max_samples:
        cuts.append(cuts[-1] + _next_cut(samples[cuts[-1] : cuts[-1] + max_samples + _BEYOND], max_samples)[0])
    return list(zip(cuts, [*cuts[1:], len(samples)], strict=True))


def _next_cut(samples: np.ndarray, max_samples: int) -> tuple[int, bool]:
    """Where a window that begins with these samples ends, and whether that is in a pause; they are longer than it, by
    `_BEYOND` if the recording is.

    The cut is in the quietest 300 ms of the last two thirds of the window, if each 20 ms of them is quiet: inside of a
    word only some are. Of similarly quiet pauses, the first is used: their differences are microphone noise, and one
    sentence is recognised better than two. Without a pause, the cut is in the quietest 100 ms of the last third:
    between two words if possible, and not too early.
    """
    search = int(max_samples * _SEARCH_SHARE)
    low, high = (max_samples - search) // _HOP, max_samples // _HOP
    energy = _smoothed_energy(samples, _LONG_SMOOTHING)[low:high]
    loudest = maximum_filter1d(_energy(samples), _LONG_SMOOTHING)[low:high]
    energy = np.where(loudest <= _PAUSE_ENERGY * np.median(energy), energy, np.inf)
    if np.isfinite(energy).any():
        return (low + int(np.argmax(energy <= _SIMILAR_ENERGY * energy.min()))) * _HOP, True
    low = (max_samples - search // 2) // _HOP
    return (low + int(np.argmin(_smoothed_energy(samples, _SHORT_SMOOTHING)[low:high]))) * _HOP, False


def _smoothed_energy(samples: np.ndarray, width: int) -> np.ndarray:
    """The energy of each hop, averaged over the `width` hops around it."""
    return np.convolve(_energy(samples), np.full(width, 1 / width), mode="same")


def _energy(samples: np.ndarray) -> np.ndarray:
    """Mean square of each hop."""
    hops = len(samples) // _HOP
    frames = samples[: hops * _HOP].reshape(hops, _HOP)
    energy: np.ndarray = np.einsum("ij,ij->i", frames, frames) / _HOP  # does not copy the recording
    return energy


class SpeechCutter:
    """Cuts a recording, which it is given block by block, into windows with speech. Keeps no more than the samples
    of a window and of the next block.

    Speech is one region while its pauses are shorter than `longest_pause`; a region that is too long for a window is
    cut as `windows` does it. Where that is not in a pause, the next window begins one to two seconds earlier, so that
    each word is whole in one of them. What is in no region is in no window.
    """

    def __init__(
        self,
        detector: SpeechDetector,
        max_seconds: Seconds = MAX_WINDOW,
        longest_pause: Seconds = LONGEST_PAUSE,
        *,
        only_full: bool = False,
    ) -> None:
        """only_full: a region that is too long is cut where a window is full, not in a pause before it."""
        self._detector = detector
        self._longest_pause = round(longest_pause / FRAME_SECONDS)  # frames
        self._max_samples = int(max_seconds * SAMPLE_RATE)
        self._only_full, self._beyond = only_full, 0 if only_full else _BEYOND
        self._unheard = np.zeros(0, np.float32)  # less than a frame
        self._kept = np.zeros(0, np.float32)  # samples that may still be in a window, from `_first` on
        self._speech = np.zeros(0, np.float32)  # of their frames
        self._first = 0
        self._shared_at_cuts = min(_SHARED, self._max_samples // (4 * _SHARED_MOST))  # at least
        self._region: int | None = None  # first sample of the open region
        self._shared = 0  # of its samples the last window has
        self._last_speech = 0  # the frame after it
        self._speaking = False

    @property
    def open_region(self) -> Window | None:
        """What was heard since speech began, if it has not ended."""
        if self._region is None:
            return None
        return Window(self._region, self._kept[self._region - self._first :].copy(), shared=self._shared)

    def add(self, block: np.ndarray) -> list[Window]:
        """The windows that end in a block, float32 [n]."""
        samples = np.concatenate([self._unheard, block])
        whole = len(samples) // FRAME * FRAME
        self._unheard = samples[whole:]
        return self._hear(samples[:whole])

    def end(self) -> list[Window]:
        """The last windows."""
        left = self._unheard
        frames = np.pad(left, (0, -len(left) % FRAME))
        found = self._hear(frames) if len(frames) else []
        if self._region is not None:
            stop = min(len(self._kept) - (len(frames) - len(left)), self._position(self._last_speech, _PAD))
            found += self._close(stop)
        return found

    def _hear(self, samples: np.ndarray) -> list[Window]:
        """samples: whole frames."""
        probabilities = self._detector.probabilities(samples.reshape(-1, FRAME))
        frame = (self._first + len(self._kept)) // FRAME
        self._kept = np.concatenate([self._kept, samples])
        self._speech = np.concatenate([self._speech, probabilities])
        found: list[Window] = []
        for probability in probabilities.tolist():
            found += self._advance(frame, probability)
            frame += 1
        self._drop(len(self._kept) - _PAD * FRAME if self._region is None else self._region - self._first)
        return found

    def _advance(self, frame: int, probability: float) -> list[Window]:
        """The windows that end with one more frame."""
        self._speaking = probability >= (_STILL_SPEECH if self._speaking else _SPEECH)
        if self._speaking:
            if self._region is None:
                self._region = max(self._first, (frame - _PAD) * FRAME)
            self._last_speech = frame + 1
        elif self._region is not None and frame - self._last_speech >= self._longest_pause:
            return self._close(self._position(self._last_speech, _PAD))
        if self._region is not None and (frame + 1) * FRAME - self._region >= self._max_samples + self._beyond:
            return self._cut()
        return []

    def _position(self, frame: int, more: int) -> int:
        """Of a frame in the kept samples."""
        return min(len(self._kept), (frame + more) * FRAME - self._first)

    def _cut(self) -> list[Window]:
        """Takes the first window from the open region, which is longer than one."""
        assert self._region is not None
        first = self._region - self._first
        length, in_pause = self._max_samples, False
        if not self._only_full:
            length, in_pause = _next_cut(self._kept[first : first + self._max_samples + _BEYOND], self._max_samples)
        found = self._window(first, first + length, continues=not in_pause)
        self._shared = 0 if in_pause or not found else self._shared_before(first + length)
        self._region += length - self._shared
        return found

    def _shared_before(self, cut: int) -> int:
        """Samples before a cut that the next window has too: from the quietest place one to two seconds before it,
        between two words if possible."""
        earliest, latest = _SHARED_MOST * self._shared_at_cuts, self._shared_at_cuts
        around = self._kept[cut - earliest - _BESIDE * _HOP : cut - latest + _BESIDE * _HOP]
        energy = _smoothed_energy(around, _SHORT_SMOOTHING)[_BESIDE:-_BESIDE]
        return earliest - int(np.argmin(energy)) * _HOP

    def _close(self, stop: int) -> list[Window]:
        """The windows of the open region, which ends at `stop` in the kept samples."""
        assert self._region is not None
        found: list[Window] = []
        while stop - (self._region - self._first) > self._max_samples:
            found += self._cut()
        found += self._window(self._region - self._first, stop)
        self._region, self._speaking, self._shared = None, False, 0
        self._drop(stop)
        return found

    def _window(self, first: int, last: int, *, continues: bool = False) -> list[Window]:
        """None if there is no word in it that no other window has: after a cut in a pause, or for a click."""
        speech = self._speech[(first + self._shared) // FRAME : max(0, -(-last // FRAME))]
        if np.count_nonzero(speech >= _SPEECH) < min(_FEWEST_FRAMES, len(speech)) or last <= first + self._shared:
            return []
        speech = self._speech[first // FRAME : -(-last // FRAME)]
        known = float(speech.mean()) if self._detector.known() else None
        return [Window(self._first + first, self._kept[first:last].copy(), known, self._shared, continues)]

    def _drop(self, count: int) -> None:
        """Forgets the first samples, in whole frames."""
        frames = max(0, count) // FRAME
        self._kept, self._speech = self._kept[frames * FRAME :], self._speech[frames:]
        self._first += frames * FRAME


_SPEECH, _STILL_SPEECH = 0.5, 0.35  # probability at which speech begins, and below which it ends (silero-vad's own)
_PAD = 10  # frames, 320 ms: kept before and after speech
_SHARED = SAMPLE_RATE  # samples, at least
_SHARED_MOST = 2  # times as many, at most
_FEWEST_FRAMES = 3  # 0.1 s: no word is shorter
