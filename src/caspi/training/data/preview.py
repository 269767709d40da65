"""Augmentation to listen to: clips without augmentation, with each effect alone, and as in training."""

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
from caspi.randomness import generator
from caspi.training.data.dataset import TrainingSet, second_speaker_clip

_EPOCHS = 2  # with all effects together: they differ from one epoch to the next


@dataclass(frozen=True, slots=True)
class PreviewClip:
    """A clip with one effect, or with all. values: the drawn parameters, such as `snr db 12.3`."""

    id: str
    text: str
    how: str
    values: tuple[str, ...]
    seconds: Seconds
    flac: bytes


class _Noted(np.random.Generator):
    """Gives the same numbers as another generator; numbers drawn between two bounds of a configuration are noted by
    name."""

    def __init__(self, draw: np.random.Generator, bounds: Mapping[tuple[Any, ...], str], values: list[str]) -> None:
        super().__init__(draw.bit_generator)
        self._bounds, self._values = bounds, values

    def uniform(self, low: Any = 0.0, high: Any = 1.0, size: Any = None) -> Any:
        value = super().uniform(low, high, size)
        if (name := self._bounds.get((low, high))) is not None and (low, high) != (0, 0):
            self._values.append(f"{name} {value:.3g}")
        return value


def preview_clips(data: TrainingSet, how: Augmentation, count: int, seed: int) -> Iterator[PreviewClip]:
    """`count` randomly drawn utterances of the split: each without augmentation, with every effect alone (applied
    whatever its probability), and as training uses it in two epochs."""
    alone = {name: Augmentation.model_validate({name: _always(how, name)}) for name in active(how)}
    versions = [(f"{name.removesuffix('_db').replace('_', ' ')} alone", one, 0) for name, one in alone.items()]
    versions += [(f"as trained on, epoch {epoch + 1}", how, epoch) for epoch in range(_EPOCHS)]
    made = [(name, WaveformAugmenter(one), data.plain.drawn(one, seed, epoch), epoch) for name, one, epoch in versions]
    for row in np.random.default_rng(seed).permutation(data.rows)[:count].tolist():
        samples = data.corpus.samples(row)
        yield _heard(data, row, "as it is", samples, [])
        for name, effects, lengths, epoch in made:
            stretch = lengths.stretch(row)
            values = _lengths(stretch)
            draw = functools.partial(_noted, how, values, seed, epoch, row)
            another = functools.partial(second_speaker_clip, data, row)
            yield _heard(data, row, name, effects(samples, stretch, draw, another), values)


def _lengths(stretch: TempoAndPadding) -> list[str]:
    """The changes to the length of a clip, in words."""
    named = [("speed", stretch.speed, 1.0), ("silence before", stretch.before, 0.0), ("after", stretch.after, 0.0)]
    return [f"{name} {value:.3g}" for name, value, without in named if value != without]


def _noted(how: Augmentation, values: list[str], seed: int, epoch: int, row: int, purpose: str) -> np.random.Generator:
    effect = getattr(how, purpose)
    fields = list(effect) if isinstance(effect, Config) else [(purpose, effect)]
    bounds = {value: name.replace("_", " ") for name, value in reversed(fields) if isinstance(value, tuple)}
    return _Noted(generator(seed, epoch, row, purpose), bounds, values)


def active(how: Augmentation) -> list[str]:
    """Effects on the waveform that are on; masks on the features cannot be heard."""
    return [name for name, value in how if value and name != "spec_augment"]


def _always(how: Augmentation, name: str) -> object:
    effect = getattr(how, name)
    return effect.model_copy(update={"probability": 1.0}) if isinstance(effect, Config) else effect


def _heard(data: TrainingSet, row: int, how: str, samples: np.ndarray, values: Sequence[str]) -> PreviewClip:
    peak = max(1.0, float(np.abs(samples).max()))  # FLAC holds no more than full scale
    flac = encode_flac(samples / np.float32(peak))
    return PreviewClip(data.ids[row], data.texts[row], how, tuple(values), len(samples) / SAMPLE_RATE, flac)
