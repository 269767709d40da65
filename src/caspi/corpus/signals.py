"""Acoustic quality measures of a clip: level, clipping, silence, noise, bandwidth.

Signals are columns of the corpus. Few of them reject utterances (filters.py); the audit and curricula use the rest.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from caspi.audio import SAMPLE_RATE

FRAME = 512  # samples, 32 ms: one column of the spectrogram, without overlap

_AT_ONCE = 64  # frames: temporaries stay in the cache, which is three times as fast
_FLOOR = 1e-10  # -100 dBFS: below 16-bit quantisation noise
_QUIET_DB = -35.0  # a frame this far below the loud ones is a pause
_NOTHING_DB = -60.0  # a frame below this level is also a pause
_BAND = 8  # spectral bins averaged before looking for the upper edge: 250 Hz
_EDGE_DB = -60.0  # the effective bandwidth ends where the spectrum has fallen this far below its peak
QUIET_FRAME = SAMPLE_RATE // 50  # samples, 20 ms
_BELOW_SPEECH_DB = 30.0  # below the loud frames of the clip
_SHORTEST_PAUSE = 5  # frames: a stop consonant is silent for less
_NEAR_PEAK = 0.97  # of the peak: samples above it count as clipped; in normal speech, one in thousands


@dataclass(frozen=True, slots=True)
class Signals:
    """peak_db, rms_db: dBFS. snr_db: loud frames over quiet ones. silence, clipping: shares, 0 to 1. dc: of full scale.

    bandwidth_hz: upper edge of the clip's spectrum; about 3,400 to 4,000 for a telephone.
    """

    peak_db: float
    rms_db: float
    snr_db: float
    silence: float
    clipping: float
    dc: float
    bandwidth_hz: float


SIGNALS: tuple[str, ...] = tuple(Signals.__dataclass_fields__)


@functools.cache
def _window() -> np.ndarray:
    return np.hanning(FRAME).astype(np.float32)


def spectrogram(samples: np.ndarray) -> np.ndarray:
    """float32 [n] at 16 kHz to power float32 [max(1, n // 512), 257]."""
    count = max(1, len(samples) // FRAME)
    if len(samples) < FRAME:
        samples = np.pad(samples, (0, FRAME - len(samples)))
    frames = samples[: count * FRAME].reshape(count, FRAME)
    power = np.empty((count, FRAME // 2 + 1), np.float32)
    for first in range(0, count, _AT_ONCE):
        some = slice(first, first + _AT_ONCE)
        spectrum = np.fft.rfft(frames[some] * _window(), axis=1)
        parts = spectrum.view(np.float32).reshape(*spectrum.shape, 2)
        np.multiply(parts, parts, out=parts)
        np.add(parts[..., 0], parts[..., 1], out=power[some])
    return power


def measure_signals(samples: np.ndarray, power: np.ndarray) -> Signals:
    """Signals of a clip, float32 [n] at 16 kHz, and its spectrogram."""
    magnitude = np.abs(samples)
    peak = float(magnitude.max(initial=0.0))
    # 6/n sum of power is the mean square of a Hann-windowed frame (window power 3/8, two-sided spectrum).
    frames = power.sum(axis=1) * (16 / 3 / FRAME**2) + _FLOOR
    loud = float(np.partition(frames, int(0.95 * (len(frames) - 1)))[int(0.95 * (len(frames) - 1))])
    quiet = float(np.partition(frames, int(0.1 * (len(frames) - 1)))[int(0.1 * (len(frames) - 1))])
    pause = max(loud * 10 ** (_QUIET_DB / 10), 10 ** (_NOTHING_DB / 10))
    return Signals(
        peak_db=_decibel(peak**2),
        rms_db=_decibel(float(np.square(samples).sum()) / max(1, len(samples))),
        snr_db=_decibel(loud) - _decibel(quiet),
        silence=float(np.count_nonzero(frames < pause)) / len(frames),
        clipping=float(np.count_nonzero(magnitude >= _NEAR_PEAK * peak)) / max(1, len(samples)) if peak else 0.0,
        dc=float(samples.mean()) if len(samples) else 0.0,
        bandwidth_hz=_bandwidth(power),
    )


def _decibel(power: float) -> float:
    return float(10 * np.log10(max(power, _FLOOR)))


def _bandwidth(power: np.ndarray) -> float:
    bands = power.sum(axis=0)[1:].reshape(-1, _BAND).sum(axis=1)
    above = np.flatnonzero(bands > max(bands.max() * 10 ** (_EDGE_DB / 10), _FLOOR))
    return float((above[-1] + 1) * _BAND * SAMPLE_RATE / FRAME) if len(above) else 0.0


def quiet_frames(samples: np.ndarray) -> np.ndarray:
    """bool [frames of 20 ms] of samples float32 [n]: inside a pause of at least 0.1 s."""
    frames = samples[: len(samples) // QUIET_FRAME * QUIET_FRAME].reshape(-1, QUIET_FRAME)
    if not len(frames):
        return np.zeros(0, bool)
    level = 10 * np.log10(np.square(frames, dtype=np.float64).mean(axis=1) + _FLOOR)
    quiet = level < np.percentile(level, 95) - _BELOW_SPEECH_DB
    for first, last in _stretches(quiet):
        if last - first < _SHORTEST_PAUSE:
            quiet[first:last] = False
    return quiet


def pauses(samples: np.ndarray) -> np.ndarray:
    """float64 [pauses, 2]: start and end in seconds of each pause of at least 0.1 s in samples, float32 [n]."""
    return _stretches(quiet_frames(samples)) * (QUIET_FRAME / SAMPLE_RATE)


def _stretches(quiet: np.ndarray) -> np.ndarray:
    """int64 [stretches, 2]: where each begins, and the frame after it."""
    return np.flatnonzero(np.diff(quiet, prepend=False, append=False)).reshape(-1, 2)
