"""Augmentation of waveforms: a chain of effects, each with its own random generator.

A new effect needs a function `effect(samples, how, draw)`, a field of `Augmentation` and a call in
`WaveformAugmenter`. Libraries such as audiomentations draw from the process's global random state, which cannot be
seeded per utterance or resumed. Each effect is a few lines of numpy; codecs are FFmpeg's.
"""

from __future__ import annotations

import contextlib
import functools
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import soundfile
import soxr

from caspi.audio import SAMPLE_RATE, Seconds, resample
from caspi.augmentation.config import (
    Augmentation,
    Clipping,
    Codec,
    CodecName,
    Noise,
    NoSpeech,
    Reverberation,
    SecondSpeaker,
)
from caspi.errors import UsageError

Draw = np.random.Generator
_SOUNDS = {".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif"}
_TELEPHONE_RATE = 8_000
_TELEPHONE_BAND = (300.0, 3_400.0)  # Hz
# FFmpeg's encoder, container and options, which give up some quality for three times the speed; kbit/s.
_CODECS: dict[CodecName, tuple[str, str, dict[str, str], tuple[int, int]]] = {
    "mp3": ("libmp3lame", "mp3", {"compression_level": "9"}, (24, 64)),
    "opus": ("libopus", "ogg", {"compression_level": "2"}, (12, 32)),
}
_MU = 255.0  # of ITU-T G.711
_LOWEST = 20.0  # Hz: below it the power of coloured noise stays constant
_LONGEST_ROOM = 2.0  # the most seconds of an impulse response that are used


class WaveformAugmenter:
    """The effects of an augmentation that change the waveform. Raises UsageError if one of its folders has no audio."""

    def __init__(self, how: Augmentation) -> None:
        self._how = how
        noise, room = how.noise, how.reverberation
        self._noises = () if noise is None else _sounds(noise.folder, "augment.noise")
        self._rooms = () if room is None else _sounds(room.folder, "augment.reverberation")
        for path in self._rooms:
            _response(path)  # reports a silent one now

    def __call__(
        self,
        samples: np.ndarray,
        stretch: TempoAndPadding,
        draw: Callable[[str], Draw],
        another: Callable[[Draw], np.ndarray],
    ) -> np.ndarray:
        """float32 [n] to float32 [m], with the length that `stretch` gives. draw: the random generator of an effect, by
        its name; another: a clip of another speaker."""
        how = self._how
        if stretch.speed != 1.0:
            samples = soxr.resample(samples, SAMPLE_RATE * stretch.speed, SAMPLE_RATE, quality="LQ")
        if stretch.before or stretch.after:
            samples = np.pad(samples, [int(seconds * SAMPLE_RATE) for seconds in (stretch.before, stretch.after)])
        if (second := how.second_speaker) is not None and _happens(here := draw("second_speaker"), second.probability):
            samples = overlap(samples, another(here), second, here)
        if (room := how.reverberation) is not None and _happens(here := draw("reverberation"), room.probability):
            samples = reverberate(samples, self._rooms, room, here)
        if (noise := how.noise) is not None and _happens(here := draw("noise"), noise.probability):
            samples = add_noise(samples, self._noises, noise, here)
        if how.gain_db is not None:
            samples = samples * np.float32(10 ** (draw("gain_db").uniform(*how.gain_db) / 20))
        if (clipping := how.clipping) is not None and _happens(here := draw("clipping"), clipping.probability):
            samples = clip(samples, clipping, here)
        if (codec := how.codec) is not None and _happens(here := draw("codec"), codec.probability):
            samples = transcode(samples, codec, here)
        return samples.astype(np.float32, copy=False)


def _happens(draw: Draw, probability: float) -> bool:
    return bool(draw.random() < probability)


class Background:
    """Noise without speech. Raises UsageError if its folder has no audio."""

    def __init__(self, how: NoSpeech) -> None:
        self._how = how
        self._files = _sounds(how.folder, "no_speech")

    def __call__(self, length: int, draw: Draw) -> np.ndarray:
        """float32 [length]."""
        below, spectral_slope = draw.uniform(*self._how.below_db), draw.uniform(*self._how.spectral_slope)
        noise = _noise(length, self._files, spectral_slope, draw)
        size = float(np.sqrt(np.mean(noise**2)))
        return noise * np.float32(10 ** (-below / 20) / size) if size else noise


def overlap(samples: np.ndarray, other: np.ndarray, how: SecondSpeaker, draw: Draw) -> np.ndarray:
    """Adds another speaker from a random point in the clip on, until either ends."""
    start = int(draw.integers(0, len(samples)))
    other = other[: len(samples) - start]
    mixed = samples.copy()
    mixed[start : start + len(other)] += _at(other, samples, draw.uniform(*how.below_db))
    return mixed


def add_noise(samples: np.ndarray, files: tuple[Path, ...], how: Noise, draw: Draw) -> np.ndarray:
    """Adds an excerpt of one of the files, or synthetic noise, at a drawn signal-to-noise ratio."""
    ratio, spectral_slope = draw.uniform(*how.snr_db), draw.uniform(*how.spectral_slope)
    return samples + _at(_noise(len(samples), files, spectral_slope, draw), samples, ratio)


def _noise(length: int, files: tuple[Path, ...], spectral_slope: float, draw: Draw) -> np.ndarray:
    """float32 [length]: an excerpt of one of the files; synthetic if there are no files."""
    if files:
        return _excerpt(files[int(draw.integers(len(files)))], length, draw)
    return coloured(length, spectral_slope, draw)


def _at(added: np.ndarray, samples: np.ndarray, below_db: float) -> np.ndarray:
    """`added` scaled to `below_db` dB below `samples`, by their mean power; silence stays silence."""
    power = float(np.mean(added**2)) if len(added) else 0.0
    if not power:
        return added
    return added * np.float32(np.sqrt(float(np.mean(samples**2)) / power) * 10 ** (-below_db / 20))


def coloured(length: int, spectral_slope: float, draw: Draw) -> np.ndarray:
    """Gaussian noise [length] whose power falls with the frequency to the power `spectral_slope`."""
    noise = draw.standard_normal(length, dtype=np.float32)
    if not spectral_slope:
        return noise
    size = 1 << (length - 1).bit_length()  # a length for which the transform is fast
    shape = np.fft.rfftfreq(size, 1 / SAMPLE_RATE).astype(np.float32).clip(min=_LOWEST) ** np.float32(
        -spectral_slope / 2
    )
    return np.fft.irfft(np.fft.rfft(noise, size) * shape, size)[:length].astype(np.float32, copy=False)


def reverberate(samples: np.ndarray, files: tuple[Path, ...], how: Reverberation, draw: Draw) -> np.ndarray:
    """Adds the sound of a room; length, position of the direct sound and power do not change."""
    below, seconds = draw.uniform(*how.below_db), draw.uniform(*how.seconds)
    if files:
        response = _response(files[int(draw.integers(len(files)))])
    else:
        length = max(2, int(seconds * SAMPLE_RATE))
        tail = draw.standard_normal(length, dtype=np.float32) * 10 ** (-3 * np.arange(length) / length)
        tail[0] = 0.0
        response = tail * np.sqrt(10 ** (-below / 10) / np.sum(tail**2))
        response[0] = 1.0
    direct = int(np.argmax(np.abs(response)))
    whole = len(samples) + len(response) - 1
    size = 1 << (whole - 1).bit_length()
    response = response.astype(np.float32, copy=False)
    filtered = np.fft.irfft(np.fft.rfft(samples, size) * np.fft.rfft(response, size), size)
    filtered = filtered[direct : direct + len(samples)].astype(np.float32, copy=False)
    return _at(filtered, samples, 0.0)


def clip(samples: np.ndarray, how: Clipping, draw: Draw) -> np.ndarray:
    """Clips the loudest samples."""
    level = float(np.quantile(np.abs(samples), 1 - draw.uniform(*how.share)))
    return np.clip(samples, -level, level)


def transcode(samples: np.ndarray, how: Codec, draw: Draw) -> np.ndarray:
    """Encodes and decodes with one of the codecs; length and timing do not change."""
    kind: CodecName = how.kinds[int(draw.integers(len(how.kinds)))]
    rate = draw.random()
    peak = max(1.0, float(np.abs(samples).max(initial=0.0)))  # codecs clip samples above full scale
    samples = samples / np.float32(peak)
    if kind == "telephone":
        narrow = _telephone_band(soxr.resample(samples, SAMPLE_RATE, _TELEPHONE_RATE))
        steps = np.round(127 * np.sign(narrow) * np.log1p(_MU * np.abs(narrow)) / np.log1p(_MU)) / 127
        coded = resample(np.sign(steps) * np.expm1(np.abs(steps) * np.log1p(_MU)) / _MU, _TELEPHONE_RATE)
    else:
        kilobits = _CODECS[kind][3]
        coded = encode_decode(kind, kilobits[0] + rate * (kilobits[1] - kilobits[0]), samples)
    coded = coded[: len(samples)]
    return np.pad(coded, (0, len(samples) - len(coded))) * np.float32(peak)


def _telephone_band(samples: np.ndarray) -> np.ndarray:
    """float32 [n] at 8 kHz, attenuated below 300 Hz and above 3,400 (ITU-T G.712) by 24 dB per octave; no delay."""
    size = 1 << (len(samples) - 1).bit_length()  # a length for which the transform is fast
    spectrum = np.fft.rfft(samples, size) * _telephone_gain(size)
    return np.fft.irfft(spectrum, size)[: len(samples)].astype(np.float32, copy=False)


@functools.lru_cache(maxsize=32)
def _telephone_gain(size: int) -> np.ndarray:
    """float32 [size / 2 + 1]: the gain at a transform's frequencies."""
    hertz = np.fft.rfftfreq(size, 1 / _TELEPHONE_RATE).clip(min=1.0)
    low, high = _TELEPHONE_BAND
    gain: np.ndarray = ((1 + (low / hertz) ** 8) * (1 + (hertz / high) ** 8)) ** -0.5
    return gain.astype(np.float32)


def encode_decode(kind: CodecName, kilobits: float, samples: np.ndarray) -> np.ndarray:
    """Encodes and decodes with mp3 or Opus at `kilobits` kbit/s. Delays are removed as the container specifies; the
    result, float32, may be a frame longer or shorter. Samples must be within full scale."""
    codec, container, options, _ = _CODECS[kind]
    file = io.BytesIO()
    with av.open(file, "w", format=container) as written:
        stream = written.add_stream(codec, rate=SAMPLE_RATE, layout="mono", options=options)
        stream.bit_rate = int(1000 * kilobits)
        frame = av.AudioFrame.from_ndarray(samples[None], format="flt", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        to_codec = av.AudioResampler(format=stream.format, layout="mono", rate=SAMPLE_RATE)
        for piece in (*to_codec.resample(frame), None):
            for packet in stream.encode(piece):
                written.mux(packet)
    file.seek(0)
    back = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE)
    with av.open(file) as coded:
        frames = [piece for frame in coded.decode(audio=0) for piece in back.resample(frame)]
    return np.concatenate([piece.to_ndarray()[0] for piece in (*frames, *back.resample(None))])


def _sounds(folder: Path | None, what: str) -> tuple[Path, ...]:
    """The audio files of a folder in a recipe; none if the recipe names no folder."""
    if folder is None:
        return ()
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SOUNDS) if folder.is_dir() else []
    if not found:
        raise UsageError(f"train.{what}.folder: {folder} holds no {', '.join(sorted(_SOUNDS))} file")
    for path in found:
        with _opened(path) as file:
            if not file.frames:
                raise UsageError(f"train.{what}.folder: {path} is empty: remove it")
    return tuple(found)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[soundfile.SoundFile]:
    """Opens an audio file. Raises UsageError if it cannot be decoded."""
    try:
        with soundfile.SoundFile(path) as file:
            yield file
    except soundfile.LibsndfileError as error:
        raise UsageError(f"{path} cannot be decoded ({error.error_string}): remove it from its folder") from error


def _excerpt(path: Path, length: int, draw: Draw) -> np.ndarray:
    """float32 [length] from a random point in a file; a file that is too short is repeated."""
    with _opened(path) as file:
        wanted = -(-length * file.samplerate // SAMPLE_RATE)
        file.seek(int(draw.integers(0, max(1, file.frames - wanted + 1))))
        sound = file.read(wanted, dtype="float32", always_2d=True).mean(axis=1)
        return np.resize(resample(sound, file.samplerate), length)


@functools.lru_cache(maxsize=512)
def _response(path: Path) -> np.ndarray:
    with _opened(path) as file:
        sound = file.read(int(_LONGEST_ROOM * file.samplerate), dtype="float32", always_2d=True)[:, 0]
        sound = resample(sound, file.samplerate)
    if not np.any(sound):
        raise UsageError(f"{path}: the impulse response is silent")
    return sound


class TempoAndPadding(NamedTuple):
    """Changes to the length of an utterance: a speed factor, and seconds of silence before and after."""

    speed: float = 1.0
    before: Seconds = 0.0
    after: Seconds = 0.0
