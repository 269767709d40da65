"""The results of an evaluation: summary.json for the whole, results.jsonl for each utterance."""

from __future__ import annotations

import functools
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from caspi.errors import UsageError
from caspi.evaluation.breakdowns import by_utterance, by_word
from caspi.evaluation.error_types import ErrorTypes, hallucination_signs
from caspi.evaluation.pairs import TranscriptPair
from caspi.evaluation.spelling_variants import SpellingVariants
from caspi.language import language
from caspi.language.base import Language, Normaliser
from caspi.scoring.edits import Counts, count
from caspi.scoring.error_rates import FAIR_VERSION, SCORES, Score, rate, total

RESULTS = "results.jsonl"
SUMMARY = "summary.json"


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

    def hard_words(self) -> dict[str, Any]:
        return by_word(self.pairs, self.treated["fair"])


def _treat(pairs: Sequence[TranscriptPair], score: str) -> list[tuple[str, str]]:
    normalisers = {name: language(name).normalisers[score] for name in {pair.language for pair in pairs}}
    return [(normalisers[pair.language](pair.reference), normalisers[pair.language](pair.hypothesis)) for pair in pairs]


def _count(texts: Sequence[tuple[str, str]]) -> Counts:
    return count([expected for expected, _ in texts], [said for _, said in texts])


def summarise(
    measured: ScoredPairs, decode_seconds: float | None = None, equivalents: SpellingVariants | None = None
) -> dict[str, Any]:
    """The content of summary.json; rates are fractions."""
    pairs = measured.pairs
    audio = sum(pair.seconds or 0.0 for pair in pairs)
    spoken = {pair.language for pair in pairs}
    return {
        "language": "/".join(sorted(spoken)),
        "fair_version": FAIR_VERSION,
        "standard": "/".join(sorted({language(name).standard for name in spoken})),
        "unit": "character" if {language(name).unit for name in spoken} == {"character"} else "word",
        **{name: asdict(measured.total(name)) for name in SCORES},
        "macro": _macro(measured),
        "relaxations": relaxations(measured, equivalents),
        "utterances": len(pairs),
        "groups": len({pair.unit for pair in pairs if pair.group}),
        "independent": len(set(measured.groups)),
        "audio_seconds": audio,
        "truncated": sum(pair.truncated for pair in pairs),
        "retried": sum(pair.retried for pair in pairs),
        "synthetic": sum(pair.synthetic for pair in pairs),
        "rtfx": audio / decode_seconds if decode_seconds else None,
        "decode_seconds": decode_seconds,
        **by_utterance(pairs, measured.counts),
        "by_word": measured.hard_words(),
        "errors": _error_types(measured),
        "made_up": dict(Counter(sign for signs in measured.signs for sign in signs)),
        "named": _named(pairs),
    }


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


def relaxations(measured: ScoredPairs, equivalents: SpellingVariants | None) -> dict[str, dict[str, float]]:
    """The fair WER when a kind of difference is ignored, and how much that removes; `all`: all kinds. The denominator
    stays the word count of the fair score, because ignoring a difference may join several words into one."""
    names = sorted({name for pair in measured.pairs for name in language(pair.language).relaxations})
    tables: dict[str, Callable[[Language], Normaliser]] = {name: _relaxation(name) for name in names}
    if equivalents is not None:
        unify = equivalents.unify
        tables = {"table": lambda spoken: unify, **tables}
    if len(tables) > 1:
        each = list(tables.values())
        tables["all"] = lambda spoken: _chained([how(spoken) for how in each])
    fair = measured.treated["fair"]
    before, words = measured.counts["fair"].errors.sum(), max(1, measured.counts["fair"].words.sum())
    found = {}
    for name, how in tables.items():
        normalisers = [how(language(pair.language)) for pair in measured.pairs]
        texts = [(f(expected), f(said)) for f, (expected, said) in zip(normalisers, fair, strict=True)]
        after = _count(texts).errors.sum()
        found[name] = {"wer": float(after / words), "removed": float((before - after) / words)}
    return found


def _relaxation(name: str) -> Callable[[Language], Normaliser]:
    return lambda spoken: spoken.relaxations.get(name, str)


def _chained(normalisers: Sequence[Normaliser]) -> Normaliser:
    def apply(text: str) -> str:
        for normalise in normalisers:
            text = normalise(text)
        return text

    return apply


def _error_types(measured: ScoredPairs) -> dict[str, Any]:
    types = ErrorTypes()
    for pair, (expected, said) in zip(measured.pairs, measured.treated["fair"], strict=True):
        if expected != said:
            types.add(expected.split(), said.split(), language(pair.language))
    return types.as_json()


def _named(pairs: Sequence[TranscriptPair]) -> dict[str, dict[str, int]] | None:
    """Spoken language -> language that the model identified -> utterances; None if the language was given."""
    if not any(pair.named for pair in pairs):
        return None
    spoken = sorted({pair.language for pair in pairs})
    return {name: dict(Counter(p.named or "none" for p in pairs if p.language == name)) for name in spoken}


def rows(measured: ScoredPairs) -> list[dict[str, Any]]:
    """The lines of results.jsonl; `wer` and `cer` are of the leaderboard score, `fair_wer` and `fair_cer` of fair."""
    scores = [_columns("", measured.counts["leaderboard"]), _columns("fair_", measured.counts["fair"])]
    return [
        asdict(pair) | strict | fair | {"made_up": signs}
        for pair, strict, fair, signs in zip(measured.pairs, *scores, measured.signs, strict=True)
    ]


def _columns(prefix: str, counts: Counts) -> list[dict[str, Any]]:
    found = {
        "wer": counts.errors / np.maximum(1, counts.words),
        "cer": counts.character_errors / np.maximum(1, counts.characters),
        "errors": counts.errors, "words": counts.words, "hits": counts.hits,
        "substitutions": counts.substitutions, "deletions": counts.deletions, "insertions": counts.insertions,
    }  # fmt: skip
    names = [f"{prefix}{name}" for name in found]
    return [dict(zip(names, row, strict=True)) for row in zip(*(v.tolist() for v in found.values()), strict=True)]


def write_results(out: Path, measured: ScoredPairs, summary: dict[str, Any]) -> None:
    """results.jsonl and summary.json."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / RESULTS).open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows(measured))
    (out / SUMMARY).write_text(json.dumps(summary, ensure_ascii=False, indent=1), encoding="utf-8")
