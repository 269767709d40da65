"""Clips for listening to augmentation: without augmentation, with each effect alone, and as in training."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from caspi.audio import SAMPLE_RATE, Seconds, encode_flac
from caspi.augmentation.config import Augmentation
from caspi.augmentation.waveform import TempoAndPadding, WaveformAugmenter
from caspi.config import Config
from caspi.randomness import generator, seeded
from caspi.training.data.dataset import TrainingSet, second_speaker_clip

_EPOCHS = 2  # shown with all effects, because random values differ between epochs


@dataclass(frozen=True, slots=True)
class PreviewClip:
    """A clip with one effect, or with all. values: the drawn parameters, such as `snr db 12.3`."""

    id: str
    text: str
    how: str
    values: tuple[str, ...]
    seconds: Seconds
    flac: bytes


class _RecordingGenerator(np.random.Generator):
    """Returns the same numbers as another generator; records numbers drawn between two bounds of a configuration, by
    name."""

    def __init__(self, rng: np.random.Generator, bounds: Mapping[tuple[Any, ...], str], values: list[str]) -> None:
        super().__init__(rng.bit_generator)
        self._bounds, self._values = bounds, values

    def uniform(self, low: Any = 0.0, high: Any = 1.0, size: Any = None) -> Any:
        value = super().uniform(low, high, size)
        if (name := self._bounds.get((low, high))) is not None and (low, high) != (0, 0):
            self._values.append(f"{name} {value:.3g}")
        return value


def preview_clips(data: TrainingSet, config: Augmentation, count: int, seed: int) -> Iterator[PreviewClip]:
    """`count` randomly drawn utterances of the split: each without augmentation, with every effect alone (applied
    whatever its probability), and as training uses it in two epochs."""
    alone = {name: Augmentation.model_validate({name: _always(config, name)}) for name in active(config)}
    versions = [(f"{name.removesuffix('_db').replace('_', ' ')} alone", effects, 0) for name, effects in alone.items()]
    versions += [(f"as trained on, epoch {epoch + 1}", config, epoch) for epoch in range(_EPOCHS)]
    augmenters = [
        (name, WaveformAugmenter(effects), data.plain.augmented(effects, seed, epoch), epoch)
        for name, effects, epoch in versions
    ]
    for row in seeded(seed).permutation(data.rows)[:count].tolist():
        samples = data.corpus.samples(row)
        yield _preview_clip(data, row, "as it is", samples, [])
        for name, augmenter, lengths, epoch in augmenters:
            tempo_and_padding = lengths.tempo_and_padding(row)
            values = _lengths(tempo_and_padding)
            generator_of = functools.partial(_recording_generator, config, values, seed, epoch, row)
            draw_second_speaker = functools.partial(second_speaker_clip, data, row)
            yield _preview_clip(
                data, row, name, augmenter(samples, tempo_and_padding, generator_of, draw_second_speaker), values
            )


def _lengths(tempo_and_padding: TempoAndPadding) -> list[str]:
    """The changes to the length of a clip, in words."""
    speed, before, after = tempo_and_padding
    changes = [("speed", speed, 1.0), ("silence before", before, 0.0), ("after", after, 0.0)]
    return [f"{name} {value:.3g}" for name, value, default in changes if value != default]


def _recording_generator(
    config: Augmentation, values: list[str], seed: int, epoch: int, row: int, purpose: str
) -> np.random.Generator:
    effect = getattr(config, purpose)
    fields = list(effect) if isinstance(effect, Config) else [(purpose, effect)]
    bounds = {value: name.replace("_", " ") for name, value in reversed(fields) if isinstance(value, tuple)}
    return _RecordingGenerator(generator(seed, epoch, row, purpose), bounds, values)


def active(config: Augmentation) -> list[str]:
    """Effects on the waveform that are on; masks on the features are not audible."""
    return [name for name, value in config if value and name != "spec_augment"]


def _always(config: Augmentation, name: str) -> object:
    effect = getattr(config, name)
    return effect.model_copy(update={"probability": 1.0}) if isinstance(effect, Config) else effect


def _preview_clip(data: TrainingSet, row: int, version: str, samples: np.ndarray, values: Sequence[str]) -> PreviewClip:
    peak = max(1.0, float(np.abs(samples).max()))  # FLAC holds no more than full scale
    flac = encode_flac(samples / np.float32(peak))
    return PreviewClip(data.ids[row], data.texts[row], version, tuple(values), len(samples) / SAMPLE_RATE, flac)
