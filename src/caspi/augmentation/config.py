"""The augmentation section of a recipe. Every effect is off unless configured; evaluation uses none."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from caspi.config import Config, rising
from caspi.model.config import MEL_BINS

Decibels = Annotated[float, Field(ge=-100, le=100)]
Range = Annotated[tuple[Decibels, Decibels], AfterValidator(rising)]  # values are drawn uniformly
_Tilt = Annotated[float, Field(ge=-2, le=4)]
Tilt = Annotated[tuple[_Tilt, _Tilt], AfterValidator(rising)]
Probability = Annotated[float, Field(ge=0, le=1)]
Seconds = Annotated[float, Field(ge=0, le=5)]
_Share = Annotated[float, Field(ge=0, le=0.5)]
Factor = Annotated[float, Field(ge=0.5, le=2)]
CodecName = Literal["mp3", "opus", "telephone"]


class SpecAugment(Config):
    """Masks on the log-mel (Park et al. 2019, arXiv:1904.08779). Widths in mel bins and frames of 10 ms;
    all time masks together cover at most `time_share` of the clip."""

    frequency_masks: int = Field(2, ge=0)
    frequency_width: int = Field(20, ge=1, le=MEL_BINS)
    time_masks: int = Field(2, ge=0)
    time_width: int = Field(20, ge=1)
    time_share: float = Field(0.2, ge=0, le=1)


class Silence(Config):
    """Silence added before and after; the seconds of each are drawn."""

    seconds: Annotated[tuple[Seconds, Seconds], AfterValidator(rising)] = (0.0, 0.5)
    probability: Probability = 0.3


class SecondSpeaker(Config):
    """Adds another utterance of the corpus, of another group, `below_db` dB below the clip, from a random position."""

    below_db: Range = (10.0, 25.0)
    probability: Probability = 0.2


class Reverberation(Config):
    """A room's impulse response, from `folder` or synthetic: noise that decays by 60 dB in `seconds` (Polack 1988),
    `below_db` dB weaker than the direct sound."""

    folder: Path | None = None
    seconds: Annotated[tuple[Seconds, Seconds], AfterValidator(rising)] = (0.1, 0.6)
    below_db: Range = (0.0, 15.0)
    probability: Probability = 0.3


class Noise(Config):
    """Noise at a signal-to-noise ratio: an excerpt of a recording of `folder`, or synthetic. The power of synthetic
    noise falls with the frequency to the power `spectral_slope`: 0 is white, 1 pink, 2 brown."""

    snr_db: Range
    folder: Path | None = None
    spectral_slope: Tilt = (0.0, 0.0)
    probability: Probability = 1.0


class Clipping(Config):
    """Clips the loudest share of the samples, as with a microphone that is too close."""

    share: Annotated[tuple[_Share, _Share], AfterValidator(rising)] = (0.001, 0.02)
    probability: Probability = 0.1


class Codec(Config):
    """Encodes and decodes the clip: mp3 at 24 to 64 kbit/s, Opus at 12 to 32, or a telephone's band, 8 kHz and 8-bit
    mu-law."""

    kinds: tuple[CodecName, ...] = Field(("mp3", "opus", "telephone"), min_length=1)
    probability: Probability = 0.3


class Augmentation(Config):
    """Effects on training clips, applied in this order. speed: factors, one of which is drawn (changes tempo and pitch
    together). gain_db: drawn uniformly."""

    speed: tuple[Factor, ...] = ()
    silence: Silence | None = None
    second_speaker: SecondSpeaker | None = None
    reverberation: Reverberation | None = None
    noise: Noise | None = None
    gain_db: Range | None = None
    clipping: Clipping | None = None
    codec: Codec | None = None
    spec_augment: SpecAugment | None = None


class NoSpeech(Config):
    """A share of the utterances is replaced by noise of the same length, with the target for no speech. The noise comes
    from recordings of `folder`, or is synthetic with `spectral_slope` as in `Noise`; `below_db` dB below full scale."""

    share: float = Field(0.02, gt=0, le=0.5)
    folder: Path | None = None
    spectral_slope: Tilt = (0.0, 2.0)
    below_db: Range = (20.0, 70.0)
