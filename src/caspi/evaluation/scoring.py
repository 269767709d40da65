"""Word and character error rates, as fractions, with bootstrap confidence intervals.

Corpus rates are those of jiwer: all edits over all reference words. An empty hypothesis is all deletions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from caspi.evaluation.edits import Counts, count
from caspi.evaluation.resampling import Interval, rate_interval
from caspi.language import Language

SCORES = ("leaderboard", "fair")
FAIR_VERSION = 1


@dataclass(frozen=True, slots=True)
class Score:
    """A corpus under one text treatment; rates are fractions, intervals 95 %, None of a single group.

    wil: word information lost (Morris et al. 2004, Interspeech). empty: hypotheses without a word."""

    wer: float
    wer_ci: Interval | None
    cer: float
    wil: float
    words: int
    hits: int
    substitutions: int
    deletions: int
    insertions: int
    utterances: int
    empty: int


def total(counts: Counts, groups: Sequence[str], *, seed: int = 0) -> Score:
    """All utterances as one; the interval resamples groups (recordings, speakers)."""
    hits, words, said = int(counts.hits.sum()), int(counts.words.sum()), int(counts.said.sum())
    return Score(
        wer=rate(counts),
        wer_ci=rate_interval(counts.errors, counts.words, groups, seed),
        cer=int(counts.character_errors.sum()) / max(1, int(counts.characters.sum())),
        wil=1 - hits * hits / max(1, words) / max(1, said),
        words=words,
        hits=hits,
        substitutions=int(counts.substitutions.sum()),
        deletions=int(counts.deletions.sum()),
        insertions=int(counts.insertions.sum()),
        utterances=len(counts.hits),
        empty=int((counts.said == 0).sum()),
    )


def rate(counts: Counts) -> float:
    """Errors a reference word; insertions against nothing but empty references count one each."""
    return int(counts.errors.sum()) / max(1, int(counts.words.sum()))


def score_corpus(
    references: Sequence[str],
    hypotheses: Sequence[str],
    groups: Sequence[str],
    language: Language,
    *,
    seed: int = 0,
) -> dict[str, Score]:
    """Every score of a corpus in one language."""
    totals = {}
    for name in SCORES:
        normalise = language.normalisers[name]
        counts = count([normalise(text) for text in references], [normalise(text) for text in hypotheses])
        totals[name] = total(counts, groups, seed=seed)
    return totals
