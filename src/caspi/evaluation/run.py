"""Evaluates a model on corpora: the scores, the scores on degraded audio, and how much of other languages is lost."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from caspi.corpus.store import Corpus
from caspi.errors import UsageError
from caspi.evaluation import benchmarks, context_test, decode
from caspi.evaluation.breakdowns import by_utterance
from caspi.evaluation.decode import DecodeJob, ModelHandle
from caspi.evaluation.pairs import TranscriptPair
from caspi.evaluation.spelling_variants import SpellingVariants
from caspi.evaluation.stress import CLEAN, CONDITIONS, FAMILIES
from caspi.evaluation.summary import ScoredPairs, summarise, write_results
from caspi.reporting import report

TRANSCRIPTS = "transcripts"


@dataclass(frozen=True, slots=True)
class EvaluationRequest:
    """What to evaluate on. corpora: the sets that count; retention: other languages, reported separately. limit:
    maximum number of utterances of each.

    stress: number of utterances of each corpus that are also decoded under every stress condition. context: number that
    are also decoded with hotwords and other context in their system turn. identify: the model identifies the language
    instead of being given it. equivalents: spellings that count as the same.
    """

    corpora: Sequence[Corpus]
    retention: Sequence[Corpus] = ()
    limit: int | None = None
    stress: int = 0
    context: int = 0
    identify: bool = False
    equivalents: SpellingVariants | None = None


def evaluate(recogniser: ModelHandle, asked: EvaluationRequest, kept: Path, out: Path) -> dict[str, Any]:
    """Decodes what `kept` does not hold yet, writes results.jsonl, summary.json and the transcripts into `out`;
    returns the summary."""
    decoder = _Decoding(recogniser, kept, asked)
    _check_ids(asked.corpora)
    pairs, seconds = decoder.all(asked.corpora, asked.limit)
    measured = ScoredPairs.of(pairs)
    summary = summarise(measured, seconds, asked.equivalents)
    summary["evaluated"] = [_what(corpus, asked.limit) for corpus in asked.corpora]
    if asked.stress:
        summary["stress"] = _stress(decoder, asked)
    if asked.context:
        summary["context"] = _context(decoder, asked)
    if asked.retention:
        summary["retention"] = {
            str(corpus.folder): _retained(decoder.all([corpus], asked.limit)[0]) for corpus in asked.retention
        }
    write_results(out, measured, summary)
    shutil.copytree(kept, out / TRANSCRIPTS)
    return summary


@dataclass(frozen=True, slots=True)
class _Decoding:
    recogniser: ModelHandle
    kept: Path
    asked: EvaluationRequest

    def all(
        self, corpora: Sequence[Corpus], limit: int | None, condition: str = CLEAN
    ) -> tuple[list[TranscriptPair], float]:
        pairs: list[TranscriptPair] = []
        seconds = 0.0
        for corpus in corpora:
            rows = range(min(len(corpus), limit or len(corpus)))
            found, taken = self.one(DecodeJob(corpus, rows, condition, self.asked.identify))
            pairs += found
            seconds += taken
        return pairs, seconds

    def one(self, part: DecodeJob) -> tuple[list[TranscriptPair], float]:
        file = self.kept / f"{part.key(self.recogniser, report.fingerprint(part.corpus.folder))}.jsonl"
        return decode.decode(self.recogniser, part, file, decode.devices())


def _what(corpus: Corpus, limit: int | None) -> dict[str, Any]:
    """Split, revision and number of evaluated utterances of a corpus."""
    return {
        "corpus": str(corpus.folder), "split": corpus.split, "revision": benchmarks.revision(corpus),
        "utterances": min(len(corpus), limit or len(corpus)), "of": len(corpus),
        "grouped_by": benchmarks.grouped_by(corpus),
    }  # fmt: skip


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


def _stress(decoder: _Decoding, asked: EvaluationRequest) -> dict[str, Any]:
    """Condition -> scores of the same utterances, of the subsets with names and with Latin, and of hard words."""
    found: dict[str, dict[str, Any]] = {}
    for condition in CONDITIONS:
        pairs, _ = decoder.all(asked.corpora, asked.stress, condition)
        measured = ScoredPairs.of(pairs)
        words = measured.hard_words()
        parts = by_utterance(pairs, measured.counts, ("names", "script"))
        named = parts["by_names"] | parts["by_script"]
        found[condition] = _scored(measured) | {
            "subsets": {name: named[name] for name in _SUBSETS if name in named},
            "hard": {kind: words[kind] for kind in ("name-like", "Latin", "with digits") if kind in words},
        }  # fmt: skip
    families = {family: [f"{family}, {name}" for name in ways] for family, ways in FAMILIES.items()}
    return {"conditions": found, "families": families}


def _context(decoder: _Decoding, asked: EvaluationRequest) -> dict[str, Any]:
    """Content of the system turn -> scores of the same utterances, and how many listed words were recognised."""
    made = [(corpus, context_test.context_conditions(corpus, asked.context)) for corpus in asked.corpora]
    words = [of for _, found in made for of in found.words]
    pairs = {context_test.NOTHING: decoder.all(asked.corpora, asked.context)[0]}
    for shown in dict.fromkeys(name for _, found in made for name in found.turns):
        pairs[shown] = []
        for corpus, found in made:
            turns = found.turns.get(shown) or [corpus.utterance(row).context for row in range(len(found.words))]
            part = DecodeJob(corpus, range(len(found.words)), CLEAN, asked.identify, shown, turns)
            pairs[shown] += decoder.one(part)[0]
    return {shown: _scored(ScoredPairs.of(of)) | context_test.with_context(of, words) for shown, of in pairs.items()}


def _scored(measured: ScoredPairs) -> dict[str, Any]:
    score = measured.total("leaderboard")
    return {name: getattr(score, name) for name in ("wer", "wer_ci", "cer", "words", "utterances")}


def _retained(pairs: Sequence[TranscriptPair]) -> dict[str, Any]:
    languages = sorted({pair.language for pair in pairs})
    return {
        spoken: asdict(ScoredPairs.of([pair for pair in pairs if pair.language == spoken]).total("leaderboard"))
        for spoken in languages
    }
