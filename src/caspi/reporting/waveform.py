"""A player with the waveform of its clip, and over it the words, coloured by how sure a model is of them."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from caspi.audio import SAMPLE_RATE

_WIDTH, _HEIGHT, _WORDS = 600, 64, 18  # _WORDS: height of the line of words
_COLUMNS = 300  # of the waveform


def embedded_audio(flac: bytes) -> str:
    """The address of audio that a page has inside."""
    return "data:audio/flac;base64," + base64.b64encode(flac).decode()


@dataclass(frozen=True, slots=True)
class ShownWord:
    """confidence: 0 to 1."""

    text: str
    start: float
    end: float
    confidence: float


@dataclass(frozen=True, slots=True)
class WaveformCell:
    """A cell of a table. flac: the clip; peaks: of equal parts of it, 0 to 1; times in seconds from its start."""

    flac: bytes
    peaks: tuple[float, ...]
    seconds: float
    words: tuple[ShownWord, ...]

    @classmethod
    def of(cls, flac: bytes, samples: np.ndarray, words: Sequence[ShownWord]) -> WaveformCell:
        """samples: of the clip, float32 [n] at 16 kHz."""
        parts = np.array_split(np.abs(samples), _COLUMNS) if len(samples) >= _COLUMNS else [np.abs(samples)]
        peaks = np.array([part.max(initial=0.0) for part in parts])
        shown = tuple((peaks / max(peaks.max(), 1e-9)).tolist())
        return cls(flac, shown, len(samples) / SAMPLE_RATE, tuple(words))

    @property
    def source(self) -> str:
        """Of the player."""
        return embedded_audio(self.flac)

    @property
    def svg(self) -> Markup:
        """The words' parts are green where the model is sure, red where it is not; each has its text as a tooltip."""
        middle = (_HEIGHT + _WORDS) / 2
        scale = _WIDTH / max(self.seconds, 1e-9)
        parts = [Markup('<svg class="waveform" viewBox="0 0 {} {}" role="img">').format(_WIDTH, _HEIGHT)]
        parts += [_word(word, scale) for word in self.words]
        step = _WIDTH / len(self.peaks)
        half = (_HEIGHT - _WORDS) / 2
        line = "".join(
            f"M{(n + 0.5) * step:.1f} {middle - half * peak:.1f}V{middle + half * peak:.1f}"
            for n, peak in enumerate(self.peaks)
        )
        parts.append(Markup('<path d="{}"/></svg>').format(line))
        return Markup("").join(parts)


def _word(word: ShownWord, scale: float) -> Markup:
    left, right = word.start * scale, word.end * scale
    shown = f"{word.text}: {word.start:.2f} to {word.end:.2f} s, {100 * word.confidence:.0f} %"
    return Markup(
        '<g><title>{}</title><rect x="{:.1f}" y="0" width="{:.1f}" height="{}" style="fill:{}"/>'
        '<text x="{:.1f}" y="13" text-anchor="middle">{}</text></g>'
    ).format(
        shown, left, max(1.0, right - left), _HEIGHT, _colour(word.confidence), (left + right) / 2, word.text
    )  # fmt: skip


def _colour(confidence: float) -> str:
    """From red over yellow to green, transparent enough for both colour schemes."""
    return f"hsl({round(120 * min(1.0, max(0.0, confidence)))} 80% 45% / 0.35)"
