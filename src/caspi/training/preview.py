"""Augmentation to listen to: clips as they are, under each effect alone, and as training hears them."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from caspi.audio import SAMPLE_RATE, Seconds, encode_flac
from caspi.config import Config
from caspi.training.augmentation import generator
from caspi.training.augmentation_config import Augmentation
from caspi.training.data import TrainingSet, another_voice
from caspi.training.waveform import Effects

_EPOCHS = 2  # of the whole chain: what training hears differs from one to the next


@dataclass(frozen=True, slots=True)
class Heard:
    """A clip under one effect, or under all."""

    id: str
    text: str
    how: str
    seconds: Seconds
    flac: bytes


def listen(data: TrainingSet, how: Augmentation, count: int, seed: int) -> Iterator[Heard]:
    """`count` utterances of the split, drawn: each as it is, under every effect alone, whatever its probability, and as
    training hears it in two epochs."""
    alone = {name: Augmentation.model_validate({name: _always(how, name)}) for name in active(how)}
    versions = [(f"{name.removesuffix('_db').replace('_', ' ')} alone", one, 0) for name, one in alone.items()]
    versions += [(f"as trained on, epoch {epoch + 1}", how, epoch) for epoch in range(_EPOCHS)]
    made = [(name, Effects(one), data.plain.drawn(one, seed, epoch), epoch) for name, one, epoch in versions]
    for row in np.random.default_rng(seed).permutation(data.rows)[:count].tolist():
        samples = data.corpus.samples(row)
        yield _heard(data, row, "as it is", samples)
        for name, effects, hearing, epoch in made:
            draw, another = functools.partial(generator, seed, epoch, row), functools.partial(another_voice, data, row)
            yield _heard(data, row, name, effects(samples, hearing.stretch(row), draw, another))


def active(how: Augmentation) -> list[str]:
    """Effects on the waveform that are on; masks on the features are not heard."""
    return [name for name, value in how if value and name != "spec_augment"]


def _always(how: Augmentation, name: str) -> object:
    effect = getattr(how, name)
    return effect.model_copy(update={"probability": 1.0}) if isinstance(effect, Config) else effect


def _heard(data: TrainingSet, row: int, how: str, samples: np.ndarray) -> Heard:
    peak = max(1.0, float(np.abs(samples).max()))  # FLAC holds no more than full scale
    flac = encode_flac(samples / np.float32(peak))
    return Heard(data.ids[row], data.texts[row], how, len(samples) / SAMPLE_RATE, flac)
