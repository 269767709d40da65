"""Augmentation of waveforms: a chain of effects, each with its own random generator.

A new effect needs a function `effect(samples, config, rng)`, a field of `Augmentation` and a call in
`WaveformAugmenter`. Libraries such as audiomentations use the process's global random state, which cannot be seeded
per utterance or resumed. Each effect is a few lines of numpy; codecs are FFmpeg's.
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
from numpy.random import Generator

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

_AUDIO_SUFFIXES = {".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif"}
_TELEPHONE_RATE = 8_000
_TELEPHONE_BAND = (300.0, 3_400.0)  # Hz
# FFmpeg's encoder, container, options (some quality is traded for three times the speed), and range of kbit/s.
_CODECS: dict[CodecName, tuple[str, str, dict[str, str], tuple[int, int]]] = {
    "mp3": ("libmp3lame", "mp3", {"compression_level": "9"}, (24, 64)),
    "opus": ("libopus", "ogg", {"compression_level": "2"}, (12, 32)),
}
_MU = 255.0  # of ITU-T G.711
_MIN_FREQUENCY = 20.0  # Hz: below it, the power of coloured noise is constant
_MAX_RESPONSE_SECONDS = 2.0  # a longer impulse response is cut


class WaveformAugmenter:
    """The effects of an augmentation that change the waveform. Raises UsageError if one of its folders has no audio."""

    def __init__(self, config: Augmentation) -> None:
        self._config = config
        noise, reverberation = config.noise, config.reverberation
        self._noise_files = () if noise is None else _audio_files(noise.folder, "augment.noise")
        self._response_files = (
            () if reverberation is None else _audio_files(reverberation.folder, "augment.reverberation")
        )
        for path in self._response_files:
            _impulse_response(path)  # raises an error now if it is silent

    def __call__(
        self,
        samples: np.ndarray,
        tempo_and_padding: TempoAndPadding,
        generator_of: Callable[[str], Generator],
        draw_second_speaker: Callable[[Generator], np.ndarray],
    ) -> np.ndarray:
        """float32 [n] to float32 [m], with the length that `tempo_and_padding` gives. generator_of: returns the random
        generator of an effect, by its name; draw_second_speaker: returns a clip of another speaker."""
        config = self._config
        speed, before, after = tempo_and_padding

        def generator_if_drawn(effect: str, probability: float) -> Generator | None:
            rng = generator_of(effect)
            return rng if rng.random() < probability else None

        if speed != 1.0:
            samples = soxr.resample(samples, SAMPLE_RATE * speed, SAMPLE_RATE, quality="LQ")
        if before or after:
            samples = np.pad(samples, [int(before * SAMPLE_RATE), int(after * SAMPLE_RATE)])
        if (second := config.second_speaker) and (rng := generator_if_drawn("second_speaker", second.probability)):
            samples = overlap(samples, draw_second_speaker(rng), second, rng)
        if (room := config.reverberation) and (rng := generator_if_drawn("reverberation", room.probability)):
            samples = reverberate(samples, self._response_files, room, rng)
        if (noise := config.noise) and (rng := generator_if_drawn("noise", noise.probability)):
            samples = add_noise(samples, self._noise_files, noise, rng)
        if config.gain_db is not None:
            samples = samples * np.float32(10 ** (generator_of("gain_db").uniform(*config.gain_db) / 20))
        if (clipping := config.clipping) and (rng := generator_if_drawn("clipping", clipping.probability)):
            samples = clip(samples, clipping, rng)
        if (codec := config.codec) and (rng := generator_if_drawn("codec", codec.probability)):
            samples = transcode(samples, codec, rng)
        return samples.astype(np.float32, copy=False)


class Background:
    """Noise without speech. Raises UsageError if its folder has no audio."""

    def __init__(self, config: NoSpeech) -> None:
        self._config = config
        self._files = _audio_files(config.folder, "no_speech")

    def __call__(self, length: int, rng: Generator) -> np.ndarray:
        """float32 [length]."""
        below_db, spectral_slope = rng.uniform(*self._config.below_db), rng.uniform(*self._config.spectral_slope)
        noise = _noise(length, self._files, spectral_slope, rng)
        rms = float(np.sqrt(np.mean(noise**2)))
        return noise * np.float32(10 ** (-below_db / 20) / rms) if rms else noise


def overlap(samples: np.ndarray, other: np.ndarray, config: SecondSpeaker, rng: Generator) -> np.ndarray:
    """Adds another speaker from a random position in the clip, until either ends."""
    start = int(rng.integers(0, len(samples)))
    other = other[: len(samples) - start]
    mixed = samples.copy()
    mixed[start : start + len(other)] += _scale_below(other, samples, rng.uniform(*config.below_db))
    return mixed


def add_noise(samples: np.ndarray, files: tuple[Path, ...], config: Noise, rng: Generator) -> np.ndarray:
    """Adds an excerpt of one of the files, or synthetic noise, at a drawn signal-to-noise ratio."""
    snr_db, spectral_slope = rng.uniform(*config.snr_db), rng.uniform(*config.spectral_slope)
    return samples + _scale_below(_noise(len(samples), files, spectral_slope, rng), samples, snr_db)


def _noise(length: int, files: tuple[Path, ...], spectral_slope: float, rng: Generator) -> np.ndarray:
    """float32 [length]: an excerpt of one of the files; synthetic if there are no files."""
    if files:
        return _excerpt(files[int(rng.integers(len(files)))], length, rng)
    return coloured(length, spectral_slope, rng)


def _scale_below(added: np.ndarray, samples: np.ndarray, below_db: float) -> np.ndarray:
    """`added` scaled to `below_db` dB below `samples`, by their mean power; silence stays silence."""
    power = float(np.mean(added**2)) if len(added) else 0.0
    if not power:
        return added
    return added * np.float32(np.sqrt(float(np.mean(samples**2)) / power) * 10 ** (-below_db / 20))


def coloured(length: int, spectral_slope: float, rng: Generator) -> np.ndarray:
    """Gaussian noise [length] whose power falls with the frequency to the power `spectral_slope`."""
    noise = rng.standard_normal(length, dtype=np.float32)
    if not spectral_slope:
        return noise
    size = 1 << (length - 1).bit_length()  # a length for which the transform is fast
    shape = np.fft.rfftfreq(size, 1 / SAMPLE_RATE).astype(np.float32).clip(min=_MIN_FREQUENCY) ** np.float32(
        -spectral_slope / 2
    )
    return np.fft.irfft(np.fft.rfft(noise, size) * shape, size)[:length].astype(np.float32, copy=False)


def reverberate(samples: np.ndarray, files: tuple[Path, ...], config: Reverberation, rng: Generator) -> np.ndarray:
    """Adds the sound of a room; length, position of the direct sound and power do not change."""
    below_db, seconds = rng.uniform(*config.below_db), rng.uniform(*config.seconds)
    if files:
        response = _impulse_response(files[int(rng.integers(len(files)))])
    else:
        length = max(2, int(seconds * SAMPLE_RATE))
        tail = rng.standard_normal(length, dtype=np.float32) * 10 ** (-3 * np.arange(length) / length)
        tail[0] = 0.0
        response = tail * np.sqrt(10 ** (-below_db / 10) / np.sum(tail**2))
        response[0] = 1.0
    direct = int(np.argmax(np.abs(response)))
    full_length = len(samples) + len(response) - 1
    size = 1 << (full_length - 1).bit_length()
    response = response.astype(np.float32, copy=False)
    filtered = np.fft.irfft(np.fft.rfft(samples, size) * np.fft.rfft(response, size), size)
    filtered = filtered[direct : direct + len(samples)].astype(np.float32, copy=False)
    return _scale_below(filtered, samples, 0.0)


def clip(samples: np.ndarray, config: Clipping, rng: Generator) -> np.ndarray:
    """Clips the loudest samples."""
    level = float(np.quantile(np.abs(samples), 1 - rng.uniform(*config.share)))
    return np.clip(samples, -level, level)


def transcode(samples: np.ndarray, config: Codec, rng: Generator) -> np.ndarray:
    """Encodes and decodes with one of the codecs; length and timing do not change."""
    kind: CodecName = config.kinds[int(rng.integers(len(config.kinds)))]
    position = rng.random()  # in the range of bit rates
    peak = max(1.0, float(np.abs(samples).max(initial=0.0)))  # codecs clip samples above full scale
    samples = samples / np.float32(peak)
    if kind == "telephone":
        narrowband = _telephone_band(soxr.resample(samples, SAMPLE_RATE, _TELEPHONE_RATE))
        quantised = np.round(127 * np.sign(narrowband) * np.log1p(_MU * np.abs(narrowband)) / np.log1p(_MU)) / 127
        coded = resample(np.sign(quantised) * np.expm1(np.abs(quantised) * np.log1p(_MU)) / _MU, _TELEPHONE_RATE)
    else:
        low, high = _CODECS[kind][3]
        coded = encode_decode(kind, low + position * (high - low), samples)
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
    frequencies = np.fft.rfftfreq(size, 1 / _TELEPHONE_RATE).clip(min=1.0)
    low, high = _TELEPHONE_BAND
    gain: np.ndarray = ((1 + (low / frequencies) ** 8) * (1 + (frequencies / high) ** 8)) ** -0.5
    return gain.astype(np.float32)


def encode_decode(kind: CodecName, kilobits: float, samples: np.ndarray) -> np.ndarray:
    """Encodes and decodes with mp3 or Opus at `kilobits` kbit/s. Delays are removed as the container specifies; the
    result, float32, may be a frame longer or shorter. Samples must be within full scale."""
    codec, container, options, _ = _CODECS[kind]
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        stream = output.add_stream(codec, rate=SAMPLE_RATE, layout="mono", options=options)
        stream.bit_rate = int(1000 * kilobits)
        frame = av.AudioFrame.from_ndarray(samples[None], format="flt", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        to_codec = av.AudioResampler(format=stream.format, layout="mono", rate=SAMPLE_RATE)
        for part in (*to_codec.resample(frame), None):
            for packet in stream.encode(part):
                output.mux(packet)
    file.seek(0)
    from_codec = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE)
    with av.open(file) as coded:
        frames = [part for frame in coded.decode(audio=0) for part in from_codec.resample(frame)]
    return np.concatenate([part.to_ndarray()[0] for part in (*frames, *from_codec.resample(None))])


def _audio_files(folder: Path | None, section: str) -> tuple[Path, ...]:
    """The audio files of a folder in a recipe; none if the recipe names no folder."""
    if folder is None:
        return ()
    files = (
        sorted(path for path in folder.rglob("*") if path.suffix.lower() in _AUDIO_SUFFIXES) if folder.is_dir() else []
    )
    if not files:
        raise UsageError(f"train.{section}.folder: {folder} holds no {', '.join(sorted(_AUDIO_SUFFIXES))} file")
    for path in files:
        with _opened(path) as file:
            if not file.frames:
                raise UsageError(f"train.{section}.folder: {path} is empty: remove it")
    return tuple(files)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[soundfile.SoundFile]:
    """Opens an audio file. Raises UsageError if it cannot be decoded."""
    try:
        with soundfile.SoundFile(path) as file:
            yield file
    except soundfile.LibsndfileError as error:
        raise UsageError(f"{path} cannot be decoded ({error.error_string}): remove it from its folder") from error


def _excerpt(path: Path, length: int, rng: Generator) -> np.ndarray:
    """float32 [length] from a random position in a file; a file that is too short is repeated."""
    with _opened(path) as file:
        count = -(-length * file.samplerate // SAMPLE_RATE)
        file.seek(int(rng.integers(0, max(1, file.frames - count + 1))))
        sound = file.read(count, dtype="float32", always_2d=True).mean(axis=1)
        return np.resize(resample(sound, file.samplerate), length)


@functools.lru_cache(maxsize=512)
def _impulse_response(path: Path) -> np.ndarray:
    with _opened(path) as file:
        sound = file.read(int(_MAX_RESPONSE_SECONDS * file.samplerate), dtype="float32", always_2d=True)[:, 0]
        sound = resample(sound, file.samplerate)
    if not np.any(sound):
        raise UsageError(f"{path}: the impulse response is silent")
    return sound


class TempoAndPadding(NamedTuple):
    """Changes to the length of an utterance: a speed factor, and seconds of silence before and after."""

    speed: float = 1.0
    before: Seconds = 0.0
    after: Seconds = 0.0
