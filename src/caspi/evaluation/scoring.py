"""Word and character error rates, as fractions, with bootstrap confidence intervals.

Corpus rates are those of jiwer: all edits over all reference words. An empty hypothesis is all deletions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jiwer
import numpy as np

from caspi.language import Language

SCORES = ("leaderboard", "fair")
FAIR_VERSION = 1
RESAMPLES = 10_000
_RESAMPLES_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Edits:
    """Counts of one utterance, in words or in characters."""

    hits: int
    substitutions: int
    deletions: int
    insertions: int

    @property
    def errors(self) -> int:
        return self.substitutions + self.deletions + self.insertions

    @property
    def length(self) -> int:
        """Units of the reference."""
        return self.hits + self.substitutions + self.deletions

    @property
    def rate(self) -> float:
        """Errors a reference unit; insertions against an empty reference count one each."""
        return self.errors / max(1, self.length)


@dataclass(frozen=True, slots=True)
class Scored:
    """One utterance under one text treatment."""

    words: Edits
    characters: Edits


@dataclass(frozen=True, slots=True)
class Score:
    """A corpus under one text treatment; rates are fractions, intervals 95 %."""

    wer: float
    wer_ci: tuple[float, float]
    cer: float
    words: int
    hits: int
    substitutions: int
    deletions: int
    insertions: int
    utterances: int
    empty: int


def score_utterance(reference: str, hypothesis: str, normalise: Callable[[str], str]) -> Scored:
    """Edits of one pair after the text treatment."""
    expected, said = normalise(reference).split(), normalise(hypothesis).split()
    return Scored(_edits(expected, said, " "), _edits(list(" ".join(expected)), list(" ".join(said)), ""))


def _edits(expected: list[str], said: list[str], joint: str) -> Edits:
    if not expected or not said:
        return Edits(0, 0, len(expected), len(said))
    measure = jiwer.process_words if joint else jiwer.process_characters
    output = measure([joint.join(expected)], [joint.join(said)])
    return Edits(output.hits, output.substitutions, output.deletions, output.insertions)


def score_corpus(
    references: Sequence[str],
    hypotheses: Sequence[str],
    groups: Sequence[str],
    language: Language,
    *,
    seed: int = 0,
) -> tuple[dict[str, Score], dict[str, list[Scored]]]:
    """Every score of a corpus and of its utterances; intervals resample groups (recordings, speakers)."""
    totals, singles = {}, {}
    for name in SCORES:
        normalise = language.normalisers[name]
        scored = [score_utterance(r, h, normalise) for r, h in zip(references, hypotheses, strict=True)]
        empty = sum(not normalise(h) for h in hypotheses)
        totals[name], singles[name] = _total(scored, groups, empty, seed), scored
    return totals, singles


def _total(scored: Sequence[Scored], groups: Sequence[str], empty: int, seed: int) -> Score:
    words = [s.words for s in scored]
    length = sum(edits.length for edits in words)
    return Score(
        wer=sum(edits.errors for edits in words) / max(1, length),
        wer_ci=bootstrap_interval(words, groups, seed=seed),
        cer=sum(s.characters.errors for s in scored) / max(1, sum(s.characters.length for s in scored)),
        words=length,
        hits=sum(edits.hits for edits in words),
        substitutions=sum(edits.substitutions for edits in words),
        deletions=sum(edits.deletions for edits in words),
        insertions=sum(edits.insertions for edits in words),
        utterances=len(scored),
        empty=empty,
    )


def group_sums(values: np.ndarray, groups: Sequence[str]) -> np.ndarray:
    """Sums [groups, ...] of per-utterance values, groups in order of first appearance."""
    index = {group: position for position, group in enumerate(dict.fromkeys(groups))}
    sums = np.zeros((len(index), *values.shape[1:]))
    np.add.at(sums, [index[group] for group in groups], values)
    return sums


def resampling_units(groups: Sequence[str]) -> list[str]:
    """What the bootstrap draws: groups where there are enough of them to draw from, else utterances.

    Utterances of one recording fail together, so groups are the honest unit; with fewer than 8 the interval over
    groups is itself unreliable, and utterances are drawn instead.
    """
    if len(set(groups)) >= 8:
        return list(groups)
    return [str(number) for number in range(len(groups))]


def bootstrap_interval(words: Sequence[Edits], groups: Sequence[str], *, seed: int = 0) -> tuple[float, float]:
    """95 % percentile interval of the corpus rate (Bisani and Ney 2004, ICASSP)."""
    counts = np.array([[edits.errors, edits.length] for edits in words], dtype=float)
    sums = group_sums(counts, resampling_units(groups))
    rates = np.concatenate([r[:, 0] / np.maximum(1, r[:, 1]) for r in resample(sums, seed)])
    low, high = np.percentile(rates, [2.5, 97.5])
    return float(low), float(high)


def resample(sums: np.ndarray, seed: int) -> list[np.ndarray]:
    """RESAMPLES bootstrap totals [n, columns], in blocks that bound memory."""
    draw = np.random.default_rng(seed)
    size = len(sums)
    blocks = []
    for _ in range(RESAMPLES // _RESAMPLES_AT_ONCE):
        weights = draw.multinomial(size, np.full(size, 1 / size), size=_RESAMPLES_AT_ONCE)
        blocks.append(weights @ sums)
    return blocks
