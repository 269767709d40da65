"""The augmentation section of a recipe. Every effect is off unless configured; evaluation uses none."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from caspi.config import Cited, Config, Unit, rising
from caspi.model.config import MEL_BINS

Decibels = Annotated[float, Unit("dB"), Field(ge=-100, le=100)]
Range = Annotated[tuple[Decibels, Decibels], AfterValidator(rising)]  # values are drawn uniformly
_Tilt = Annotated[float, Unit("exponent"), Field(ge=-2, le=4)]
Tilt = Annotated[tuple[_Tilt, _Tilt], AfterValidator(rising)]
Probability = Annotated[float, Unit("probability"), Field(ge=0, le=1)]
Seconds = Annotated[float, Unit("s"), Field(ge=0, le=5)]
_Share = Annotated[float, Unit("share"), Field(ge=0, le=0.5)]
Factor = Annotated[float, Unit("factor"), Field(ge=0.5, le=2)]
CodecName = Literal["mp3", "opus", "telephone"]
_MASKS = Cited("Park et al. 2019, arXiv:1904.08779")
_ROOM = Cited("Polack 1988, doctoral thesis, Université du Maine")
_PHONE = Cited("ITU-T G.711 (telephone)")


class SpecAugment(Config):
    """Masks on the log-mel spectrogram (SpecAugment): bands of frequencies or of time are removed."""

    frequency_masks: Annotated[int, Unit("masks"), _MASKS] = Field(2, ge=0)
    """Number of frequency masks in a clip."""
    frequency_width: Annotated[int, Unit("mel bins"), _MASKS] = Field(20, ge=1, le=MEL_BINS)
    """Largest width of a frequency mask; the width is drawn from 0 to this value."""
    time_masks: Annotated[int, Unit("masks"), _MASKS] = Field(2, ge=0)
    """Number of time masks in a clip."""
    time_width: Annotated[int, Unit("frames of 10 ms"), _MASKS] = Field(20, ge=1)
    """Largest width of a time mask; the width is drawn from 0 to this value."""
    time_share: Annotated[float, Unit("share"), _MASKS] = Field(0.2, ge=0, le=1)
    """Largest share of a clip that all time masks together cover."""


class Silence(Config):
    """Silence added before and after a clip."""

    seconds: Annotated[tuple[Seconds, Seconds], AfterValidator(rising)] = (0.0, 0.5)
    """Shortest and longest silence; the length before and the length after the clip are drawn separately."""
    probability: Probability = 0.3
    """Probability that a clip gets silence."""


class SecondSpeaker(Config):
    """Another utterance of the corpus, from another group, added from a random position of the clip."""

    below_db: Range = (10.0, 25.0)
    """How much weaker the second speaker is than the clip: smallest and largest difference."""
    probability: Probability = 0.2
    """Probability that a clip gets a second speaker."""


class Reverberation(Config):
    """The echo of a room: an impulse response, recorded or synthetic."""

    folder: Path | None = None
    """A folder with recorded impulse responses. Without it, they are synthetic: noise that becomes weaker with time."""
    seconds: Annotated[tuple[Seconds, Seconds], AfterValidator(rising), _ROOM] = (0.1, 0.6)
    """Shortest and longest time in which the synthetic echo becomes 60 dB weaker."""
    below_db: Range = (0.0, 15.0)
    """How much weaker the echo is than the direct sound: smallest and largest difference."""
    probability: Probability = 0.3
    """Probability that a clip gets an echo."""


class Noise(Config):
    """Noise added to the clip: a part of a recording, or synthetic."""

    snr_db: Range
    """Smallest and largest signal-to-noise ratio: how much stronger the clip is than the noise."""
    folder: Path | None = None
    """A folder with recordings of noise. Without it, the noise is synthetic."""
    spectral_slope: Tilt = (0.0, 0.0)
    """Smallest and largest slope of synthetic noise: its power falls with the frequency to the power of this value. 0
    is white noise, 1 pink, 2 brown."""
    probability: Probability = 1.0
    """Probability that a clip gets noise."""


class Clipping(Config):
    """Cuts off the loudest samples, as when a microphone is too close."""

    share: Annotated[tuple[_Share, _Share], AfterValidator(rising)] = (0.001, 0.02)
    """Smallest and largest share of the samples that are cut off."""
    probability: Probability = 0.1
    """Probability that a clip is clipped."""


class Codec(Config):
    """Encodes and decodes the clip, so that it has the errors of a codec."""

    kinds: Annotated[tuple[CodecName, ...], _PHONE] = Field(("mp3", "opus", "telephone"), min_length=1)
    """Codecs, one of which is drawn: `mp3` at 24 to 64 kbit/s, `opus` at 12 to 32 kbit/s, or `telephone`: the narrow
    frequency band of a telephone, at 8 kHz with 8-bit mu-law."""
    probability: Probability = 0.3
    """Probability that a clip is encoded."""


class Augmentation(Config):
    """Effects on training clips, applied in this order."""

    speed: Annotated[tuple[Factor, ...], Cited("Ko et al. 2015, Interspeech, pages 3586-3589")] = ()
    """Speed factors, one of which is drawn for each clip; tempo and pitch change together. 1.1 is 10 % faster."""
    silence: Silence | None = None
    """Adds silence before and after the clip."""
    second_speaker: SecondSpeaker | None = None
    """Adds the voice of a second speaker in the background."""
    reverberation: Reverberation | None = None
    """Adds the echo of a room."""
    noise: Noise | None = None
    """Adds noise."""
    gain_db: Range | None = None
    """Smallest and largest change of the volume; the change is drawn for each clip."""
    clipping: Clipping | None = None
    """Cuts off the loudest samples."""
    codec: Codec | None = None
    """Encodes and decodes the clip."""
    spec_augment: Annotated[SpecAugment | None, _MASKS] = None
    """Removes random bands of frequencies and of time from the log-mel spectrogram."""


class NoSpeech(Config):
    """Some utterances are replaced by noise of the same length, and their target by the one for no speech."""

    share: Annotated[float, Unit("share")] = Field(0.02, gt=0, le=0.5)
    """Share of the utterances that are replaced."""
    folder: Path | None = None
    """A folder with recordings of noise. Without it, the noise is synthetic."""
    spectral_slope: Tilt = (0.0, 2.0)
    """Smallest and largest slope of synthetic noise: its power falls with the frequency to the power of this value. 0
    is white noise, 1 pink, 2 brown."""
    below_db: Range = (20.0, 70.0)
    """How much weaker the noise is than the loudest possible sound (full scale): smallest and largest difference."""
