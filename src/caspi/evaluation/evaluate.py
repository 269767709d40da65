"""A model on corpora: transcripts, scores with intervals, and the files other programs rely on."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from caspi.audio import Seconds
from caspi.corpus.store import Corpus
from caspi.corpus.utterance import Utterance
from caspi.evaluation.scoring import FAIR_VERSION, SCORES, Score, Scored, score_corpus, score_utterance
from caspi.inference.transcriber import Transcriber
from caspi.language import Language, language
from caspi.progress import Progress

RESULTS = "results.jsonl"
SUMMARY = "summary.json"
DURATION_BUCKETS: tuple[tuple[Seconds, Seconds], ...] = ((0.0, 5.0), (5.0, 15.0), (15.0, 30.0), (30.0, float("inf")))
_UTTERANCES_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class Pair:
    """What was said and what a system made of it, with what breakdowns need."""

    id: str
    reference: str
    hypothesis: str
    seconds: Seconds | None = None
    source: str = ""
    group: str = ""
    truncated: bool = False
    synthetic: bool = False


def transcribe_corpus(transcriber: Transcriber, corpus: Corpus, limit: int | None = None) -> list[Pair]:
    """Hypotheses for every utterance (or the first `limit`), language forced to the reference's."""
    rows = range(min(len(corpus), limit or len(corpus)))
    pairs: list[Pair] = []
    with Progress("evaluate", unit="utterances", total=len(rows)) as progress:
        for start in range(0, len(rows), _UTTERANCES_AT_ONCE):
            block = rows[start : start + _UTTERANCES_AT_ONCE]
            utterances = [corpus.utterance(row) for row in block]
            said = transcriber.transcribe(
                [corpus.samples(row) for row in block],
                languages=[utterance.language for utterance in utterances],
                contexts=[utterance.context for utterance in utterances],
            )
            pairs += [_pair(u, t.text, truncated=t.truncated > 0) for u, t in zip(utterances, said, strict=True)]
            progress.advance(len(block))
    return pairs


def _pair(utterance: Utterance, text: str, *, truncated: bool) -> Pair:
    return Pair(
        id=utterance.id,
        reference=utterance.text,
        hypothesis=text,
        seconds=utterance.seconds,
        source=utterance.source,
        group=utterance.group,
        truncated=truncated,
        synthetic=utterance.synthetic,
    )


def summarise(pairs: Sequence[Pair], spoken: Language, decode_seconds: float | None = None) -> dict[str, Any]:
    """The content of summary.json; rates are fractions."""
    total, _ = _score(pairs, spoken)
    audio = sum(pair.seconds or 0.0 for pair in pairs)
    return {
        "language": spoken.name,
        "fair_version": FAIR_VERSION,
        **{name: asdict(score) for name, score in total.items()},
        "utterances": len(pairs),
        "groups": len({pair.group for pair in pairs}),
        "audio_seconds": audio,
        "truncated": sum(pair.truncated for pair in pairs),
        "synthetic": sum(pair.synthetic for pair in pairs),
        "rtfx": audio / decode_seconds if decode_seconds else None,
        "decode_seconds": decode_seconds,
        "by_source": _breakdown(pairs, spoken, lambda pair: pair.source or None),
        "by_duration": _breakdown(pairs, spoken, _bucket),
        "by_group": _breakdown(pairs, spoken, lambda pair: pair.group or None) if _few_groups(pairs) else {},
    }


def _few_groups(pairs: Sequence[Pair]) -> bool:
    return len({pair.group for pair in pairs}) <= 50


def _score(pairs: Sequence[Pair], spoken: Language) -> tuple[dict[str, Score], dict[str, list[Scored]]]:
    return score_corpus(
        [pair.reference for pair in pairs],
        [pair.hypothesis for pair in pairs],
        [pair.group or pair.id for pair in pairs],
        spoken,
    )


def _bucket(pair: Pair) -> str | None:
    if pair.seconds is None:
        return None
    low, high = next(b for b in DURATION_BUCKETS if b[0] <= pair.seconds < b[1])
    return f"{low:g}-{high:g} s" if high < float("inf") else f"{low:g}+ s"


def _breakdown(pairs: Sequence[Pair], spoken: Language, key: Callable[[Pair], str | None]) -> dict[str, dict[str, Any]]:
    parts: dict[str, list[Pair]] = {}
    for pair in pairs:
        name = key(pair)
        if name is not None:
            parts.setdefault(name, []).append(pair)
    result = {}
    for name, members in sorted(parts.items()):
        scores, _ = _score(members, spoken)
        result[name] = {
            "utterances": len(members),
            **{kind: {"wer": s.wer, "wer_ci": s.wer_ci, "cer": s.cer} for kind, s in scores.items()},
        }
    return result


def rows(pairs: Sequence[Pair], spoken: Language) -> list[dict[str, Any]]:
    """The lines of results.jsonl; `wer` and `cer` are of the leaderboard score, `fair_wer` and `fair_cer` beside."""
    single = {
        name: [score_utterance(pair.reference, pair.hypothesis, spoken.normalisers[name]) for pair in pairs]
        for name in SCORES
    }
    return [
        asdict(pair)
        | {
            "wer": strict.words.rate,
            "cer": strict.characters.rate,
            "errors": strict.words.errors,
            "words": strict.words.length,
            "fair_wer": fair.words.rate,
            "fair_cer": fair.characters.rate,
            "fair_errors": fair.words.errors,
            "fair_words": fair.words.length,
        }
        for pair, strict, fair in zip(pairs, single["leaderboard"], single["fair"], strict=True)
    ]


def evaluate(transcriber: Transcriber, corpora: Sequence[Corpus], limit: int | None = None) -> tuple[list[Pair], float]:
    """All pairs of several corpora and the seconds decoding took."""
    started = time.monotonic()
    pairs = [pair for corpus in corpora for pair in transcribe_corpus(transcriber, corpus, limit)]
    return pairs, time.monotonic() - started


def write(out: Path, pairs: Sequence[Pair], decode_seconds: float | None, language_name: str) -> dict[str, Any]:
    """results.jsonl and summary.json; returns the summary."""
    spoken = language(language_name)
    out.mkdir(parents=True, exist_ok=True)
    summary = summarise(pairs, spoken, decode_seconds)
    lines = [json.dumps(row, ensure_ascii=False) for row in rows(pairs, spoken)]
    (out / RESULTS).write_text("\n".join(lines) + "\n", encoding="utf-8")
    (out / SUMMARY).write_text(json.dumps(summary, ensure_ascii=False, indent=1), encoding="utf-8")
    return summary
