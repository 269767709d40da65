"""A stratified sample of a corpus: noisy, clean and unusual utterances of every source, weighted to stand for all."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from caspi.config import Config, Unit
from caspi.corpus.store import Corpus
from caspi.randomness import seeded

Stratum = Literal["noisy", "clean", "tail"]
_QUOTAS: dict[Stratum, float] = {"noisy": 0.4, "clean": 0.4, "tail": 0.2}
_EXTREME = 0.05  # share of a source that is longest, shortest, or of the most unusual rate


class Sampling(Config):
    """How many utterances of every source are audited."""

    share: Annotated[float, Unit("share")] = Field(0.1, gt=0, le=1)
    """Of the utterances of a source."""
    at_least: Annotated[int, Unit("utterances")] = Field(300, ge=1)
    """From every source, or all that it has."""
    at_most: Annotated[int, Unit("utterances")] = Field(5000, ge=1)
    """From every source, unless `share` is 1."""
    seed: int = 0
    """Start value of the random choices."""


@dataclass(frozen=True, slots=True)
class SampledRow:
    """A row of the corpus. weight: the number of utterances that it stands for."""

    row: int
    source: str
    stratum: Stratum
    weight: float


def sample(corpus: Corpus, asked: Sampling) -> list[SampledRow]:
    """The rows in corpus order."""
    sources, seconds = np.array(corpus.column("source")), corpus.numbers("seconds")
    rate = np.array([len(text) for text in corpus.column("text")]) / np.maximum(seconds, 0.01)
    snr = corpus.numbers("snr_db")
    draw = seeded(asked.seed)
    found: list[SampledRow] = []
    for source in sorted(set(sources.tolist())):
        rows = np.flatnonzero(sources == source)
        strata = _strata(rows, seconds, rate, snr)
        for stratum, count in _counts(len(rows), strata, asked).items():
            chosen = draw.permutation(strata[stratum])[:count].tolist()
            found += [SampledRow(row, source, stratum, len(strata[stratum]) / count) for row in chosen]
    return sorted(found, key=lambda one: one.row)


def _strata(rows: np.ndarray, seconds: np.ndarray, rate: np.ndarray, snr: np.ndarray) -> dict[Stratum, np.ndarray]:
    """The rows of each stratum. tail: the longest, the shortest, and those of the most unusual rate. Utterances whose
    noise is not known count as clean."""
    count = math.ceil(_EXTREME * len(rows))
    by_length = rows[np.argsort(seconds[rows], kind="stable")]
    log_rate = np.log(np.maximum(rate[rows], 1e-3))
    by_rate = rows[np.argsort(-np.abs(log_rate - np.median(log_rate)), kind="stable")]
    tail = np.unique(np.concatenate([by_length[:count], by_length[-count:], by_rate[:count]]))
    others = np.setdiff1d(rows, tail)
    known = snr[others][~np.isnan(snr[others])]
    noisy = others[snr[others] < np.median(known)] if len(known) else others[:0]
    return {"noisy": noisy, "clean": np.setdiff1d(others, noisy), "tail": tail}


def _counts(size: int, strata: dict[Stratum, np.ndarray], asked: Sampling) -> dict[Stratum, int]:
    """How many of each stratum; what one lacks is taken from the others."""
    wanted = size if asked.share == 1 else min(size, max(asked.at_least, min(asked.at_most, round(asked.share * size))))
    counts = {name: min(len(rows), round(_QUOTAS[name] * wanted)) for name, rows in strata.items()}
    for name in sorted(strata, key=lambda one: len(strata[one]), reverse=True):
        counts[name] += min(len(strata[name]) - counts[name], wanted - sum(counts.values()))
    return {name: count for name, count in counts.items() if count > 0}
