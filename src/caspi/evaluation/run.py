"""Evaluates a model on corpora: the scores, the scores on degraded audio, and how much of other languages is lost."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from caspi.audio import Seconds
from caspi.corpus.store import Corpus
from caspi.errors import UsageError
from caspi.evaluation import benchmarks, context_test, decode
from caspi.evaluation.breakdowns import by_utterance
from caspi.evaluation.decode import DecodeJob, ModelHandle
from caspi.evaluation.options import EvaluationOptions
from caspi.evaluation.pairs import TranscriptPair
from caspi.evaluation.results import (
    ConditionScore,
    ContextScore,
    EvaluatedSet,
    EvaluationSummary,
    ScoredUtterance,
    StressScore,
    StressTest,
)
from caspi.evaluation.spelling_variants import SpellingVariants
from caspi.evaluation.stress import CLEAN, CONDITIONS, FAMILIES
from caspi.evaluation.summary import ScoredPairs, summarise, write_results
from caspi.inference.decoding_options import DecodingOptions
from caspi.reporting import report
from caspi.scoring.error_rates import Score

TRANSCRIPTS = "transcripts"


@dataclass(frozen=True, slots=True)
class EvaluationInputs:
    """What an evaluation reads. corpora: the sets that count. retention: other languages, reported separately.
    equivalents: spellings that count as the same."""

    model: ModelHandle
    corpora: Sequence[Corpus]
    retention: Sequence[Corpus] = ()
    equivalents: SpellingVariants | None = None


def evaluate(
    inputs: EvaluationInputs, options: EvaluationOptions, cache: Path, out: Path
) -> tuple[EvaluationSummary, list[ScoredUtterance]]:
    """Decodes what the folder `cache` does not hold yet, and writes results.jsonl, summary.json and the transcripts
    into `out`."""
    decoder = _Decoder(inputs.model, cache, options.identify, options.decoding)
    _check_ids(inputs.corpora)
    pairs, seconds = decoder.first(inputs.corpora, options.limit)
    measured = ScoredPairs.of(pairs)
    summary = replace(
        summarise(measured, seconds, inputs.equivalents),
        evaluated=tuple(_evaluated(corpus, options.limit) for corpus in inputs.corpora),
        stress=_stress(decoder, inputs.corpora, options.stress) if options.stress else None,
        context=_context(decoder, inputs.corpora, options.context) if options.context else None,
        retention={
            str(corpus.folder): _by_language(decoder.first([corpus], options.limit)[0]) for corpus in inputs.retention
        }
        or None,
    )
    utterances = write_results(out, measured, summary)
    shutil.copytree(cache, out / TRANSCRIPTS)
    return summary, utterances


@dataclass(frozen=True, slots=True)
class _Decoder:
    model: ModelHandle
    cache: Path
    identify: bool
    decoding: DecodingOptions

    def first(
        self, corpora: Sequence[Corpus], limit: int | None, condition: str = CLEAN
    ) -> tuple[list[TranscriptPair], Seconds]:
        """The first `limit` utterances of every corpus, and how long decoding took."""
        pairs: list[TranscriptPair] = []
        seconds = 0.0
        for corpus in corpora:
            rows = range(min(len(corpus), limit or len(corpus)))
            decoded, taken = self.decode(DecodeJob(corpus, rows, condition, self.identify, self.decoding))
            pairs += decoded
            seconds += taken
        return pairs, seconds

    def decode(self, job: DecodeJob) -> tuple[list[TranscriptPair], Seconds]:
        file = self.cache / f"{job.key(self.model, report.fingerprint(job.corpus.folder))}.jsonl"
        return decode.decode(self.model, job, file, decode.devices())


def _evaluated(corpus: Corpus, limit: int | None) -> EvaluatedSet:
    return EvaluatedSet(
        corpus=str(corpus.folder),
        split=corpus.split,
        revision=benchmarks.revision(corpus),
        utterances=min(len(corpus), limit or len(corpus)),
        of=len(corpus),
        grouped_by=benchmarks.grouped_by(corpus),
    )


def _check_ids(corpora: Sequence[Corpus]) -> None:
    seen: set[str] = set()
    for corpus in corpora:
        ids = set(corpus.column("id"))
        if both := sorted(seen & ids):
            raise UsageError(
                f"{len(both):,} utterance ids are in two of the corpora, such as {both[0]}: "
                "the results would be ambiguous"
            )
        seen |= ids


_SUBSETS = ("with name-like words", "with Latin", "with Latin and digits", "with digits")
_HARD_WORDS = ("name-like", "Latin", "with digits")


def _stress(decoder: _Decoder, corpora: Sequence[Corpus], limit: int) -> StressTest:
    """The same utterances under every condition."""
    conditions: dict[str, StressScore] = {}
    for condition in CONDITIONS:
        pairs, _ = decoder.first(corpora, limit, condition)
        measured = ScoredPairs.of(pairs)
        by = by_utterance(pairs, measured.counts, ("names", "script"))
        parts = by["names"].parts | by["script"].parts
        words = measured.hard_words().classes
        conditions[condition] = StressScore(
            **_condition_score(measured),
            subsets={name: parts[name] for name in _SUBSETS if name in parts},
            hard={kind: words[kind] for kind in _HARD_WORDS if kind in words},
        )
    families = {family: [f"{family}, {level}" for level in levels] for family, levels in FAMILIES.items()}
    return StressTest(conditions, families)


def _context(decoder: _Decoder, corpora: Sequence[Corpus], limit: int) -> dict[str, ContextScore]:
    """Content of the system turn -> scores of the same utterances."""
    made = [(corpus, context_test.context_conditions(corpus, limit)) for corpus in corpora]
    words = [listed for _, conditions in made for listed in conditions.words]
    pairs = {context_test.NOTHING: decoder.first(corpora, limit)[0]}
    for name in dict.fromkeys(name for _, conditions in made for name in conditions.turns):
        pairs[name] = []
        for corpus, conditions in made:
            rows = range(len(conditions.words))
            turns = conditions.turns.get(name) or [corpus.utterance(row).context for row in rows]
            job = DecodeJob(corpus, rows, CLEAN, decoder.identify, decoder.decoding, name, turns)
            pairs[name] += decoder.decode(job)[0]
    scores = {}
    for name, decoded in pairs.items():
        hotwords, distractors = context_test.words_recognised(decoded, words)
        scores[name] = ContextScore(**_condition_score(ScoredPairs.of(decoded)), expected=hotwords, others=distractors)
    return scores


def _condition_score(measured: ScoredPairs) -> dict[str, Any]:
    """The fields of a ConditionScore."""
    score = measured.total("leaderboard")
    return {field.name: getattr(score, field.name) for field in fields(ConditionScore)}


def _by_language(pairs: Sequence[TranscriptPair]) -> dict[str, Score]:
    languages = sorted({pair.language for pair in pairs})
    return {
        spoken: ScoredPairs.of([pair for pair in pairs if pair.language == spoken]).total("leaderboard")
        for spoken in languages
    }
