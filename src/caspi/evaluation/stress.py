"""The stress set: any evaluation set made harder by reproducible degradations."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
import soxr
from numpy.random import Generator as Draw

from caspi.audio import SAMPLE_RATE
from caspi.augmentation import waveform
from caspi.augmentation.config import Clipping, Codec, CodecName, Noise, Reverberation, SecondSpeaker
from caspi.randomness import seeded

Another = Callable[[Draw], np.ndarray]
Condition = Callable[[np.ndarray, Draw, Another], np.ndarray]
CLEAN = "clean"


def _noise(ratio: float) -> Condition:
    how = Noise(snr_db=(ratio, ratio), spectral_slope=(1.0, 1.0))
    return lambda samples, draw, another: waveform.add_noise(samples, (), how, draw)


def _codec(kind: CodecName, kilobits: float) -> Condition:
    def apply(samples: np.ndarray, draw: Draw, another: Another) -> np.ndarray:
        peak = np.float32(max(1.0, float(np.abs(samples).max(initial=0.0))))
        return waveform.encode_decode(kind, kilobits, samples / peak) * peak

    return apply


def _telephone(samples: np.ndarray, draw: Draw, another: Another) -> np.ndarray:
    return waveform.transcode(samples, Codec(kinds=("telephone",)), draw)


def _speed(factor: float) -> Condition:
    return lambda samples, draw, another: soxr.resample(samples, SAMPLE_RATE * factor, SAMPLE_RATE)


def _room(samples: np.ndarray, draw: Draw, another: Another) -> np.ndarray:
    return waveform.reverberate(samples, (), Reverberation(seconds=(0.6, 0.6), below_db=(0.0, 0.0)), draw)


def _overlap(samples: np.ndarray, draw: Draw, another: Another) -> np.ndarray:
    return waveform.overlap(samples, another(draw), SecondSpeaker(below_db=(10.0, 10.0)), draw)


def _clipped(samples: np.ndarray, draw: Draw, another: Another) -> np.ndarray:
    return waveform.clip(samples, Clipping(share=(0.1, 0.1)), draw)


# The conditions of one family form one curve of the report, mildest first.
FAMILIES: dict[str, dict[str, Condition]] = {
    "noise (pink)": {f"{ratio} dB": _noise(ratio) for ratio in (20, 10, 5, 0)},
    "telephone": {"8 kHz mu-law": _telephone},
    "mp3": {f"{rate} kbit/s": _codec("mp3", rate) for rate in (24, 16)},
    "Opus": {f"{rate} kbit/s": _codec("opus", rate) for rate in (12, 6)},
    "speed": {f"{factor} times": _speed(factor) for factor in (0.85, 1.25)},
    "reverberation": {"0.6 s": _room},
    "another speaker": {"10 dB below": _overlap},
    "clipping": {"a tenth of the samples": _clipped},
}
CONDITIONS: dict[str, Condition] = {
    CLEAN: lambda samples, draw, another: samples,
    **{f"{family}, {name}": how for family, ways in FAMILIES.items() for name, how in ways.items()},
}


def drawn_for(condition: str, identifier: str) -> Draw:
    """The random generator of an utterance under a condition, the same every time."""
    seed = int.from_bytes(hashlib.sha256(f"{condition}\n{identifier}".encode()).digest()[:8], "big")
    return seeded(seed)


def apply_condition(condition: str, identifier: str, samples: np.ndarray, another: Another) -> np.ndarray:
    """float32 [n] to float32 [m]; the random draws depend only on the utterance and the condition."""
    heard = CONDITIONS[condition](samples, drawn_for(condition, identifier), another)
    return heard.astype(np.float32, copy=False)
