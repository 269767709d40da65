"""A training set that exists only as numbers, to plan a run before there is a corpus."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np

from caspi.audio import Seconds
from caspi.corpus.store import Corpus
from caspi.errors import UsageError
from caspi.model.prompt import Prompt
from caspi.randomness import seeded
from caspi.training.config import TrainConfig
from caspi.training.data.dataset import TrainingSet
from caspi.training.data.epoch_lengths import EpochLengths

TOKENS_PER_SECOND = 4.4  # of Hebrew text in the vocabulary of Qwen3-ASR
_SPREAD = 0.6  # standard deviation of the logarithm of a clip's length
_SHORTEST = 0.5
_AROUND = 5  # tokens of a target beside its text: the language and the end
_CONTEXT_TOKENS = 75  # of 200 characters of preceding text, or of a list of hotwords


@dataclass(frozen=True, slots=True)
class AssumedCorpus:
    """hours: of speech by source; the name "" if sources make no difference. mean_seconds: of a clip."""

    hours: Mapping[str, float]
    mean_seconds: Seconds = 8.0


def assumed_set(assumed: AssumedCorpus, prompt: Prompt, config: TrainConfig, seed: int) -> TrainingSet:
    """Clips with log-normal lengths, and as many target tokens as Hebrew speech has. It has no texts and no audio.

    Raises UsageError for a mix whose sources have no hours.
    """
    mixed = {source for mix in config.mixes.values() for source in mix.sources}
    if missing := sorted(mixed - set(assumed.hours)):
        raise UsageError(
            f"the recipe mixes sources: give the hours of each, such as {' '.join(f'--hours {n}=100' for n in missing)}"
        )
    if not _SHORTEST < assumed.mean_seconds < config.max_seconds:
        raise UsageError(
            f"--mean-seconds {assumed.mean_seconds:g}: give a length between {_SHORTEST} and train.max_seconds = "
            f"{config.max_seconds:g}"
        )
    lengths, sources = [], []
    for number, (name, hours) in enumerate(assumed.hours.items()):
        count = max(1, round(hours * 3600 / assumed.mean_seconds))
        lengths.append(_lengths(count, assumed.mean_seconds, config.max_seconds, seed + number))
        sources += [name] * count
    seconds = np.concatenate(lengths)
    target_tokens = np.ceil(TOKENS_PER_SECOND * seconds).astype(np.int64) + _AROUND
    around = len(prompt.prefix(0)) + (_CONTEXT_TOKENS if config.previous_text or config.hotwords else 0)
    return TrainingSet(
        corpus=cast(Corpus, None),  # a plan does not read it
        rows=np.arange(len(seconds)),
        ids=[],
        seconds=seconds,
        texts=[],
        languages=[],
        contexts=[],
        previous=[],
        sources=sources,
        target_tokens=target_tokens,
        plain=EpochLengths.of(seconds, around + target_tokens),
    )


def _lengths(count: int, mean: Seconds, longest: Seconds, seed: int) -> np.ndarray:
    """float64 [count] in seconds, with this mean although none is shorter or longer than the limits."""
    drawn = seeded(seed).lognormal(0.0, _SPREAD, count)
    low, high = 0.0, longest / float(drawn.min())
    for _ in range(50):  # by bisection: the mean grows with the factor
        factor = (low + high) / 2
        below = float(np.clip(factor * drawn, _SHORTEST, longest).mean()) < mean
        low, high = (factor, high) if below else (low, factor)
    return np.asarray(np.clip(high * drawn, _SHORTEST, longest))
