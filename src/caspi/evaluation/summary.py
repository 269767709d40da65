"""The results of an evaluation: summary.json for the whole, results.jsonl for each utterance."""

from __future__ import annotations

import functools
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from caspi.errors import UsageError
from caspi.evaluation.breakdowns import by_utterance, by_word
from caspi.evaluation.calibration import calibration
from caspi.evaluation.error_types import ErrorTypes, hallucination_signs
from caspi.evaluation.pairs import TranscriptPair
from caspi.evaluation.results import (
    RESULTS,
    SUMMARY,
    ErrorTable,
    EvaluationSummary,
    HardWordTable,
    Relaxation,
    ScoredUtterance,
    UtteranceScore,
)
from caspi.evaluation.spelling_variants import SpellingVariants
from caspi.language import language
from caspi.language.base import Language, Normaliser
from caspi.scoring.edits import Counts, count
from caspi.scoring.error_rates import FAIR_VERSION, SCORES, Score, rate, total


@dataclass(frozen=True)
class ScoredPairs:
    """Pairs with their normalised texts (reference and hypothesis of each) and their edits, under each score."""

    pairs: Sequence[TranscriptPair]
    treated: dict[str, list[tuple[str, str]]]
    counts: dict[str, Counts]

    @classmethod
    def of(cls, pairs: Sequence[TranscriptPair]) -> ScoredPairs:
        """Raises UsageError if no reference contains a word."""
        treated = {name: _treat(pairs, name) for name in SCORES}
        measured = cls(pairs, treated, {name: _count(texts) for name, texts in treated.items()})
        if not measured.counts["leaderboard"].words.any():
            raise UsageError("no reference holds a word: there is nothing to score")
        return measured

    @property
    def groups(self) -> list[tuple[str, str]]:
        return [pair.unit for pair in self.pairs]

    def total(self, name: str) -> Score:
        return total(self.counts[name], self.groups)

    @functools.cached_property
    def signs(self) -> list[list[str]]:
        """For each pair, the signs that its hypothesis is a hallucination."""
        return [hallucination_signs(pair, *texts) for pair, texts in zip(self.pairs, self.treated["fair"], strict=True)]

    def hard_words(self) -> HardWordTable:
        return by_word(self.pairs, self.treated["fair"])


def _treat(pairs: Sequence[TranscriptPair], score: str) -> list[tuple[str, str]]:
    normalisers = {name: language(name).normalisers[score] for name in {pair.language for pair in pairs}}
    return [(normalisers[pair.language](pair.reference), normalisers[pair.language](pair.hypothesis)) for pair in pairs]


def _count(texts: Sequence[tuple[str, str]]) -> Counts:
    return count([reference for reference, _ in texts], [hypothesis for _, hypothesis in texts])


def summarise(
    measured: ScoredPairs, decode_seconds: float | None = None, equivalents: SpellingVariants | None = None
) -> EvaluationSummary:
    """The results over all pairs. decode_seconds: what decoding took; None where nothing was decoded."""
    pairs = measured.pairs
    audio = sum(pair.seconds or 0.0 for pair in pairs)
    spoken = {pair.language for pair in pairs}
    return EvaluationSummary(
        language="/".join(sorted(spoken)),
        fair_version=FAIR_VERSION,
        standard="/".join(sorted({language(name).standard for name in spoken})),
        unit="character" if {language(name).unit for name in spoken} == {"character"} else "word",
        leaderboard=measured.total("leaderboard"),
        fair=measured.total("fair"),
        macro=_macro(measured),
        relaxations=relaxations(measured, equivalents),
        utterances=len(pairs),
        groups=len({pair.unit for pair in pairs if pair.group}),
        independent=len(set(measured.groups)),
        audio_seconds=audio,
        truncated=sum(pair.truncated for pair in pairs),
        retried=sum(pair.retried for pair in pairs),
        guarded=sum(pair.guarded for pair in pairs),
        synthetic=sum(pair.synthetic for pair in pairs),
        rtfx=audio / decode_seconds if decode_seconds else None,
        decode_seconds=decode_seconds,
        by=by_utterance(pairs, measured.counts),
        hard_words=measured.hard_words(),
        errors=_error_table(measured),
        hallucinations=dict(Counter(sign for signs in measured.signs for sign in signs)),
        named=_named(pairs),
        calibration=calibration(pairs, measured.treated["fair"]),
    )


def _macro(measured: ScoredPairs) -> dict[str, float]:
    """Score -> the unweighted mean of the WER of all sources. Benchmarks of several sets often report this, while `wer`
    pools their words."""
    places: defaultdict[str, list[int]] = defaultdict(list)
    for place, pair in enumerate(measured.pairs):
        places[pair.source].append(place)
    return {
        name: float(np.mean([rate(counts.of(of_source)) for of_source in places.values()]))
        for name, counts in measured.counts.items()
    }


def relaxations(measured: ScoredPairs, equivalents: SpellingVariants | None) -> dict[str, Relaxation]:
    """The fair WER when a kind of difference is ignored, and how much that removes; `all`: all kinds. The denominator
    stays the word count of the fair score, because ignoring a difference may join several words into one."""
    names = sorted({name for pair in measured.pairs for name in language(pair.language).relaxations})
    tables: dict[str, Callable[[Language], Normaliser]] = {name: _relaxation(name) for name in names}
    if equivalents is not None:
        unify = equivalents.unify
        tables = {"table": lambda spoken: unify, **tables}
    if len(tables) > 1:
        each = list(tables.values())
        tables["all"] = lambda spoken: _chained([normaliser(spoken) for normaliser in each])
    fair = measured.treated["fair"]
    before, words = measured.counts["fair"].errors.sum(), max(1, measured.counts["fair"].words.sum())
    relaxed = {}
    for name, normaliser in tables.items():
        normalisers = [normaliser(language(pair.language)) for pair in measured.pairs]
        texts = [(f(reference), f(hypothesis)) for f, (reference, hypothesis) in zip(normalisers, fair, strict=True)]
        after = _count(texts).errors.sum()
        relaxed[name] = Relaxation(float(after / words), float((before - after) / words))
    return relaxed


def _relaxation(name: str) -> Callable[[Language], Normaliser]:
    return lambda spoken: spoken.relaxations.get(name, str)


def _chained(normalisers: Sequence[Normaliser]) -> Normaliser:
    def apply(text: str) -> str:
        for normalise in normalisers:
            text = normalise(text)
        return text

    return apply


def _error_table(measured: ScoredPairs) -> ErrorTable:
    types = ErrorTypes()
    for pair, (reference, hypothesis) in zip(measured.pairs, measured.treated["fair"], strict=True):
        if reference != hypothesis:
            types.add(reference.split(), hypothesis.split(), language(pair.language))
    return types.table()


def _named(pairs: Sequence[TranscriptPair]) -> dict[str, dict[str, int]] | None:
    """Spoken language -> language that the model identified -> utterances; None if the language was given."""
    if not any(pair.named for pair in pairs):
        return None
    spoken = sorted({pair.language for pair in pairs})
    return {name: dict(Counter(p.named or "none" for p in pairs if p.language == name)) for name in spoken}


def scored_utterances(measured: ScoredPairs) -> list[ScoredUtterance]:
    """Every pair with its errors, in the order of the pairs."""
    scores = (_utterance_scores(measured.counts[name]) for name in SCORES)
    return list(map(ScoredUtterance, measured.pairs, *scores, measured.signs))


def _utterance_scores(counts: Counts) -> list[UtteranceScore]:
    columns = {
        "wer": counts.errors / np.maximum(1, counts.words),
        "cer": counts.character_errors / np.maximum(1, counts.characters),
        "errors": counts.errors, "words": counts.words, "hits": counts.hits,
        "substitutions": counts.substitutions, "deletions": counts.deletions, "insertions": counts.insertions,
    }  # fmt: skip
    rows = zip(*(values.tolist() for values in columns.values()), strict=True)
    return [UtteranceScore(**dict(zip(columns, row, strict=True))) for row in rows]


def write_results(out: Path, measured: ScoredPairs, summary: EvaluationSummary) -> list[ScoredUtterance]:
    """Writes results.jsonl and summary.json; returns the lines of the first."""
    out.mkdir(parents=True, exist_ok=True)
    utterances = scored_utterances(measured)
    with (out / RESULTS).open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(scored.as_json(), ensure_ascii=False) + "\n" for scored in utterances)
    (out / SUMMARY).write_text(json.dumps(summary.as_json(), ensure_ascii=False, indent=1), encoding="utf-8")
    return utterances
