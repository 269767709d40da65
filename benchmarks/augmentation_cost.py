"""What each augmentation of the waveform costs: milliseconds of one core for a second of audio, median of clips.

    python benchmarks/augmentation_cost.py [--clips 60]

Clips of 2 to 15 s of noise; every effect with its default ranges and probability 1, then all of them with their default
probabilities. Decoding the same clip from FLAC, which every training step does, stands beside it.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import time
from collections.abc import Callable

import numpy as np

from caspi.audio import SAMPLE_RATE, decode_flac, encode_flac
from caspi.training.augmentation import generator
from caspi.training.augmentation_config import (
    Augmentation,
    Clipping,
    Codec,
    Noise,
    Reverberation,
    SecondSpeaker,
    Silence,
)
from caspi.training.hearing import Hearing
from caspi.training.waveform import Effects

_ALONE = {
    "speed": Augmentation(speed=(0.9, 1.1)),
    "silence": Augmentation(silence=Silence(probability=1)),
    "second speaker": Augmentation(second_speaker=SecondSpeaker(probability=1)),
    "reverberation, made": Augmentation(reverberation=Reverberation(probability=1)),
    "noise, white": Augmentation(noise=Noise(snr_db=(5, 30))),
    "noise, coloured": Augmentation(noise=Noise(snr_db=(5, 30), tilt=(0.5, 2))),
    "gain": Augmentation(gain_db=(-12, 3)),
    "clipping": Augmentation(clipping=Clipping(probability=1)),
    "codec mp3": Augmentation(codec=Codec(kinds=("mp3",), probability=1)),
    "codec opus": Augmentation(codec=Codec(kinds=("opus",), probability=1)),
    "codec telephone": Augmentation(codec=Codec(kinds=("telephone",), probability=1)),
    "all, at their probabilities": Augmentation(
        speed=(0.9, 1.0, 1.1), silence=Silence(), second_speaker=SecondSpeaker(), reverberation=Reverberation(),
        noise=Noise(snr_db=(5, 30), tilt=(0, 2), probability=0.5), gain_db=(-12, 3), clipping=Clipping(), codec=Codec(),
    ),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=60)
    count = parser.parse_args().clips
    draw = np.random.default_rng(0)
    clips = [draw.standard_normal(int(s * SAMPLE_RATE)).astype(np.float32) * 0.1 for s in draw.uniform(2, 15, count)]
    other = clips[0]
    print("| effect | ms for a second of audio |\n|---|---|")
    for name, how in _ALONE.items():
        effects = Effects(how)
        heard = Hearing.drawn(np.array([len(clip) / SAMPLE_RATE for clip in clips]), 0, how, 0, 0)

        def run(row: int, effects: Effects = effects, heard: Hearing = heard) -> object:
            return effects(clips[row], heard.stretch(row), functools.partial(generator, 0, 0, row), lambda _: other)

        print(f"| {name} | {_cost(run, clips):.2f} |", flush=True)
    stored = [encode_flac(clip) for clip in clips]
    print(f"| decoding FLAC | {_cost(lambda row: decode_flac(stored[row]), clips):.2f} |")


def _cost(run: Callable[[int], object], clips: list[np.ndarray]) -> float:
    """Total over the clips by their seconds, median of three passes."""
    totals = []
    for _ in range(3):
        started = time.perf_counter()
        for row in range(len(clips)):
            run(row)
        totals.append(time.perf_counter() - started)
    return 1000 * statistics.median(totals) / (sum(map(len, clips)) / SAMPLE_RATE)


if __name__ == "__main__":
    main()
