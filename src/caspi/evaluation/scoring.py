"""Word and character error rates, as fractions, with bootstrap confidence intervals.

Corpus rates are those of jiwer: all edits over all reference words. An empty hypothesis is all deletions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from caspi.evaluation.edits import Edits, Words, count
from caspi.evaluation.resampling import rate_interval
from caspi.language import Language

SCORES = ("leaderboard", "fair")
FAIR_VERSION = 1


@dataclass(frozen=True, slots=True)
class Scored:
    """One utterance under one text treatment."""

    words: Edits
    characters: Edits


@dataclass(frozen=True, slots=True)
class Score:
    """A corpus under one text treatment; rates are fractions, intervals 95 %. wil: word information lost (Morris et
    al. 2004, Interspeech). empty: hypotheses without a word."""

    wer: float
    wer_ci: tuple[float, float]
    cer: float
    wil: float
    words: int
    hits: int
    substitutions: int
    deletions: int
    insertions: int
    utterances: int
    empty: int


def score_texts(expected: Sequence[str], said: Sequence[str]) -> list[Scored]:
    """Edits of each pair of texts that have been treated: single spaces between words, none around them."""
    words = Words()
    return [
        Scored(count(words.encode(one), words.encode(other)), count(one, other))
        for one, other in zip(expected, said, strict=True)
    ]


def score_utterance(reference: str, hypothesis: str, normalise: Callable[[str], str]) -> Scored:
    """Edits of one pair after the text treatment."""
    return score_texts([normalise(reference)], [normalise(hypothesis)])[0]


def total(scored: Sequence[Scored], groups: Sequence[str], *, seed: int = 0) -> Score:
    """All of them as one; the interval resamples groups (recordings, speakers)."""
    words = [one.words for one in scored]
    hits, length, said = (sum(getattr(one, name) for one in words) for name in ("hits", "length", "said"))
    errors = [one.errors for one in words]
    return Score(
        wer=sum(errors) / max(1, length),
        wer_ci=rate_interval(errors, [one.length for one in words], groups, seed),
        cer=sum(one.characters.errors for one in scored) / max(1, sum(one.characters.length for one in scored)),
        wil=1 - hits * hits / max(1, length) / max(1, said),
        words=length,
        hits=hits,
        substitutions=sum(one.substitutions for one in words),
        deletions=sum(one.deletions for one in words),
        insertions=sum(one.insertions for one in words),
        utterances=len(scored),
        empty=sum(one.said == 0 for one in words),
    )


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
        scored = score_texts([normalise(text) for text in references], [normalise(text) for text in hypotheses])
        totals[name] = total(scored, groups, seed=seed)
    return totals
