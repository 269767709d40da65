"""Word and character error rates, as fractions, with confidence intervals.

Corpus rates equal those of jiwer: all edits over all reference words. An empty hypothesis counts as deletions only.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from caspi.language import Language
from caspi.scoring.edits import Counts, count
from caspi.scoring.intervals import Interval, rate_interval

SCORES = ("leaderboard", "fair")
FAIR_VERSION = 2


@dataclass(frozen=True, slots=True)
class Score:
    """A corpus under one text normalisation; rates are fractions, intervals 95 %, None for a single group.

    wil: word information lost (Morris et al. 2004, Interspeech). empty: number of hypotheses without a word.
    sentence_error_rate: share of utterances with an error. mean_wer: unweighted mean of the utterances' WERs, without
    utterances whose reference has no words."""

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
    sentence_error_rate: float
    mean_wer: float


def total(counts: Counts, groups: Sequence[Hashable]) -> Score:
    """The score of all utterances together; the interval is over groups (recordings, speakers)."""
    has_words = counts.words > 0
    hits, words, hypothesis_words = int(counts.hits.sum()), int(counts.words.sum()), int(counts.hypothesis_words.sum())
    return Score(
        wer=rate(counts),
        wer_ci=rate_interval(counts.errors, counts.words, groups),
        cer=int(counts.character_errors.sum()) / max(1, int(counts.characters.sum())),
        wil=1 - hits * hits / max(1, words) / max(1, hypothesis_words),
        words=words,
        hits=hits,
        substitutions=int(counts.substitutions.sum()),
        deletions=int(counts.deletions.sum()),
        insertions=int(counts.insertions.sum()),
        utterances=len(counts.hits),
        empty=int((counts.hypothesis_words == 0).sum()),
        sentence_error_rate=float((counts.errors > 0).mean()) if len(counts.errors) else 0.0,
        mean_wer=float((counts.errors[has_words] / counts.words[has_words]).mean()) if has_words.any() else 0.0,
    )


def rate(counts: Counts) -> float:
    """Errors per reference word. If all references are empty, each insertion counts as one."""
    return int(counts.errors.sum()) / max(1, int(counts.words.sum()))


def score_corpus(
    references: Sequence[str],
    hypotheses: Sequence[str],
    groups: Sequence[Hashable],
    languages: Sequence[Language],
) -> dict[str, Score]:
    """Every score of a corpus, each utterance by the rules of its language."""
    totals = {}
    for name in SCORES:
        normalisers = [language.normalisers[name] for language in languages]
        counts = count(
            [normalise(text) for normalise, text in zip(normalisers, references, strict=True)],
            [normalise(text) for normalise, text in zip(normalisers, hypotheses, strict=True)],
        )
        totals[name] = total(counts, groups)
    return totals
