"""Cost of each waveform augmentation: milliseconds of one core per second of audio, median of three passes.

    python benchmarks/augmentation_cost.py [--clips 60]

The clips are 2 to 15 s of noise. Every effect runs with its default ranges and probability 1, then all effects together
with their default probabilities. For comparison, the cost of decoding the same clips from FLAC, as training does.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile

from caspi.audio import SAMPLE_RATE, decode_flac, encode_flac
from caspi.augmentation.config import Augmentation, Clipping, Codec, Noise, Reverberation, SecondSpeaker, Silence
from caspi.augmentation.waveform import WaveformAugmenter
from caspi.randomness import generator
from caspi.training.data.epoch_lengths import EpochLengths

_ALONE = {
    "speed": Augmentation(speed=(0.9, 1.1)),
    "silence": Augmentation(silence=Silence(probability=1)),
    "second speaker": Augmentation(second_speaker=SecondSpeaker(probability=1)),
    "reverberation, synthetic": Augmentation(reverberation=Reverberation(probability=1)),
    "noise, white": Augmentation(noise=Noise(snr_db=(5, 30))),
    "noise, coloured": Augmentation(noise=Noise(snr_db=(5, 30), spectral_slope=(0.5, 2))),
    "gain": Augmentation(gain_db=(-12, 3)),
    "clipping": Augmentation(clipping=Clipping(probability=1)),
    "codec mp3": Augmentation(codec=Codec(kinds=("mp3",), probability=1)),
    "codec opus": Augmentation(codec=Codec(kinds=("opus",), probability=1)),
    "codec telephone": Augmentation(codec=Codec(kinds=("telephone",), probability=1)),
    "all, at their probabilities": Augmentation(
        speed=(0.9, 1.0, 1.1), silence=Silence(), second_speaker=SecondSpeaker(), reverberation=Reverberation(),
        noise=Noise(snr_db=(5, 30), spectral_slope=(0, 2), probability=0.5), gain_db=(-12, 3), clipping=Clipping(),
        codec=Codec(),
    ),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=60)
    count = parser.parse_args().clips
    draw = np.random.default_rng(0)
    clips = [draw.standard_normal(int(s * SAMPLE_RATE)).astype(np.float32) * 0.1 for s in draw.uniform(2, 15, count)]
    print("| effect | ms per second of audio |\n|---|---|")
    with tempfile.TemporaryDirectory(prefix="caspi-bench-") as folder:
        for name, how in (_ALONE | _of_folder(Path(folder), draw)).items():
            _show(name, how, clips)
    stored = [encode_flac(clip) for clip in clips]
    print(f"| decoding FLAC | {_cost(lambda row: decode_flac(stored[row]), clips):.2f} |")


def _of_folder(folder: Path, draw: np.random.Generator) -> dict[str, Augmentation]:
    """Typical recordings: noise of one minute each at 44.1 kHz, impulse responses of half a second at 48 kHz."""
    for number in range(5):
        for kind, seconds, rate in (("noise", 60.0, 44_100), ("room", 0.5, 48_000)):
            (folder / kind).mkdir(exist_ok=True)
            sound = draw.standard_normal(int(seconds * rate)) * 0.1
            fading = np.exp(-8 * np.arange(len(sound)) / len(sound)) if kind == "room" else 1.0
            soundfile.write(folder / kind / f"{number}.wav", sound * fading, rate)
    return {
        "noise from a folder": Augmentation(noise=Noise(snr_db=(5, 30), folder=folder / "noise")),
        "reverberation from a folder": Augmentation(reverberation=Reverberation(folder=folder / "room", probability=1)),
    }


def _show(name: str, how: Augmentation, clips: list[np.ndarray]) -> None:
    effects = WaveformAugmenter(how)
    lengths = EpochLengths.of(np.array([len(clip) / SAMPLE_RATE for clip in clips])).augmented(how, 0, 0)

    def run(row: int) -> object:
        draw = functools.partial(generator, 0, 0, row)
        return effects(clips[row], lengths.tempo_and_padding(row), draw, lambda _: clips[0])

    print(f"| {name} | {_cost(run, clips):.2f} |", flush=True)


def _cost(run: Callable[[int], object], clips: list[np.ndarray]) -> float:
    """Milliseconds per second of audio over all clips, median of three passes."""
    totals = []
    for _ in range(3):
        started = time.perf_counter()
        for row in range(len(clips)):
            run(row)
        totals.append(time.perf_counter() - started)
    return 1000 * statistics.median(totals) / (sum(map(len, clips)) / SAMPLE_RATE)


if __name__ == "__main__":
    main()
