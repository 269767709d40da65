"""What an evaluation produces, with types; `as_json` is what summary.json and results.jsonl hold.

Rates are fractions; `*_ci` are 95 % intervals, None for a single group.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

from caspi.atomic_output import read_jsonl
from caspi.audio import Seconds
from caspi.errors import UsageError
from caspi.evaluation.pairs import TranscriptPair
from caspi.reporting.wording import FEW, plural
from caspi.scoring.error_rates import Score
from caspi.scoring.intervals import Interval

RESULTS = "results.jsonl"
SUMMARY = "summary.json"


@dataclass(frozen=True, slots=True)
class EvaluatedSet:
    """A corpus that was evaluated. utterances: number evaluated, `of` all. revision: of a benchmark set. grouped_by:
    see benchmarks.grouped_by."""

    corpus: str
    split: str
    revision: str | None
    utterances: int
    of: int
    grouped_by: str | None


@dataclass(frozen=True, slots=True)
class PartScore:
    """One score of a part of the utterances."""

    wer: float
    wer_ci: Interval | None
    cer: float
    words: int


@dataclass(frozen=True, slots=True)
class Part:
    """The scores of a part of the utterances, such as one source."""

    utterances: int
    groups: int
    leaderboard: PartScore
    fair: PartScore


@dataclass(frozen=True, slots=True)
class Breakdown:
    """The scores by one property. all_parts: number of all parts, of which `parts` has those with the most errors."""

    parts: dict[str, Part]
    all_parts: int


@dataclass(frozen=True, slots=True)
class HardWords:
    """Words of a class that is hard to recognise. rate: share that was missed."""

    words: int
    missed: int
    rate: float
    rate_ci: Interval | None


@dataclass(frozen=True, slots=True)
class HardWordTable:
    """Class -> its words. left_out: utterances that cannot be counted word by word."""

    classes: dict[str, HardWords]
    left_out: int

    def as_json(self) -> dict[str, Any]:
        return {"left_out": self.left_out, **{name: asdict(words) for name, words in self.classes.items()}}


@dataclass(frozen=True, slots=True)
class Relaxation:
    """The fair WER when one kind of difference is ignored, and how much that removes."""

    wer: float
    removed: float


@dataclass(frozen=True, slots=True)
class ErrorTable:
    """Errors by kind, and the most frequent ones: (expected, recognised, times) or (word, times)."""

    kinds: dict[str, int]
    confused: list[tuple[str, str, int]]
    deleted: list[tuple[str, int]]
    inserted: list[tuple[str, int]]
    letters: list[tuple[str, str, int]]
    prefixes: list[tuple[str, str, int]]


@dataclass(frozen=True, slots=True)
class CalibrationBin:
    """Recognised words whose probability is between `low` and `high`: its mean, and the share that is correct."""

    low: float
    high: float
    words: int
    probability: float
    correct: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """Of all recognised words: the mean of their probabilities and the share that is correct. expected_error: mean
    distance of the two over bins of the probability, weighted by words (expected calibration error, ECE). left_out:
    utterances that cannot be counted word by word."""

    words: int
    left_out: int
    probability: float
    correct: float
    expected_error: float
    bins: tuple[CalibrationBin, ...]


@dataclass(frozen=True, slots=True)
class ConditionScore:
    """The leaderboard score of utterances that were decoded again under some condition."""

    wer: float
    wer_ci: Interval | None
    cer: float
    words: int
    utterances: int


@dataclass(frozen=True, slots=True)
class StressScore(ConditionScore):
    """On degraded audio. subsets: of the utterances with names and with Latin or digits. hard: of hard words."""

    subsets: dict[str, Part]
    hard: dict[str, HardWords]


@dataclass(frozen=True, slots=True)
class StressTest:
    """families: conditions by kind of degradation, in order of level."""

    conditions: dict[str, StressScore]
    families: dict[str, list[str]]


@dataclass(frozen=True, slots=True)
class WordsRecognised:
    """How many of some words are in the hypotheses."""

    words: int
    heard: int


@dataclass(frozen=True, slots=True)
class ContextScore(ConditionScore):
    """With one kind of context in the system turn. expected: hotwords that are spoken. others: distractors."""

    expected: WordsRecognised
    others: WordsRecognised


@dataclass(frozen=True, slots=True)
class EvaluationSummary:
    """Everything in summary.json.

    unit: word or character. macro: score -> unweighted mean of the sources' WERs. independent: number of groups of
    correlated errors, utterances without a group counting alone. rtfx: seconds of audio decoded per second; None where
    nothing was decoded. hallucinations: sign -> utterances. named: spoken language -> identified language ->
    utterances; None if the language was given. calibration: None where words have no probabilities. evaluated, stress,
    context, retention (folder -> language -> score): only where they were measured.
    """

    language: str
    fair_version: int
    standard: str
    unit: str
    leaderboard: Score
    fair: Score
    macro: dict[str, float]
    relaxations: dict[str, Relaxation]
    utterances: int
    groups: int
    independent: int
    audio_seconds: Seconds
    truncated: int
    retried: int
    guarded: int
    synthetic: int
    rtfx: float | None
    decode_seconds: Seconds | None
    by: dict[str, Breakdown]
    hard_words: HardWordTable
    errors: ErrorTable
    hallucinations: dict[str, int]
    named: dict[str, dict[str, int]] | None
    calibration: Calibration | None = None
    evaluated: tuple[EvaluatedSet, ...] = ()
    stress: StressTest | None = None
    context: dict[str, ContextScore] | None = None
    retention: dict[str, dict[str, Score]] | None = None

    def counted(self) -> str:
        """`200 of 1,204 utterances in 8 groups`: how much the figures rest on."""
        whole = sum(corpus.of for corpus in self.evaluated)
        count = plural(self.utterances, "utterance")
        if whole > self.utterances:
            count = f"{self.utterances:,} of {plural(whole, 'utterance')}"
        if self.independent == self.utterances:
            return count
        has_rough_interval = self.leaderboard.wer_ci is not None and self.independent < FEW
        rough = ", so its interval is rough" if has_rough_interval else ""
        return f"{count} in {plural(self.independent, 'group')}{rough}"

    def as_json(self) -> dict[str, Any]:
        """`by` becomes `by_source`, `by_duration` and so on, and `parts` with the number of all parts."""
        content: dict[str, Any] = {}
        for name in (field.name for field in fields(self)):
            value = getattr(self, name)
            if name == "by":
                content["parts"] = {key: breakdown.all_parts for key, breakdown in self.by.items()}
                for key, breakdown in self.by.items():
                    content[f"by_{key}"] = _plain(breakdown.parts)
            elif name == "hard_words":
                content["by_word"] = self.hard_words.as_json()
            elif name in _OPTIONAL:
                content |= {name: _plain(value)} if value else {}
            else:
                content[_KEYS.get(name, name)] = _plain(value)
        return content


_OPTIONAL = ("calibration", "evaluated", "stress", "context", "retention")
_KEYS = {"hallucinations": "made_up"}  # kept from the first version of the file


# What people see for the conditions of the context test, whose names are keys of summary.json.
_CONTEXT_LABELS = {
    "nothing": "no context",
    "words to expect": "hotwords and distractors",
    "words that nobody says": "distractors only",
    "the text before": "previous text",
}


def context_label(condition: str) -> str:
    """The name of a condition of the context test as people see it."""
    return _CONTEXT_LABELS.get(condition, condition)


def _plain(value: Any) -> Any:
    """Dataclasses inside dictionaries and sequences as dictionaries."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return asdict(value) if hasattr(value, "__dataclass_fields__") else value


@dataclass(frozen=True, slots=True)
class UtteranceScore:
    """The errors of one utterance under one score."""

    errors: int
    words: int
    wer: float = 0.0
    cer: float = 0.0
    hits: int = 0
    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0


_FAIR = "fair_"
_TEXTS = ("id", "reference", "hypothesis")
_COUNTS = ("errors", "words", "fair_errors", "fair_words")


@dataclass(frozen=True, slots=True)
class ScoredUtterance:
    """A line of results.jsonl. signs: that the hypothesis is a hallucination."""

    pair: TranscriptPair
    leaderboard: UtteranceScore
    fair: UtteranceScore
    signs: list[str]

    def as_json(self) -> dict[str, Any]:
        """`wer`, `errors` and so on are of the leaderboard score, `fair_wer` and so on of fair."""
        fair = {f"{_FAIR}{name}": value for name, value in asdict(self.fair).items()}
        return asdict(self.pair) | asdict(self.leaderboard) | fair | {"made_up": self.signs}

    @classmethod
    def from_json(cls, row: Mapping[str, Any], where: str) -> Self:
        """Raises UsageError, beginning with `where`, if a field is missing or not of its type."""
        _check(row, where)
        known = {field.name for field in fields(TranscriptPair)}
        given = {name: value for name, value in row.items() if name in known and value is not None}
        pair = TranscriptPair(**given | {"probabilities": tuple(row.get("probabilities") or ())})
        names = [field.name for field in fields(UtteranceScore)]
        leaderboard, fair = (
            UtteranceScore(**{name: row[f"{prefix}{name}"] for name in names if f"{prefix}{name}" in row})
            for prefix in ("", _FAIR)
        )
        return cls(pair, leaderboard, fair, row.get("made_up") or [])


def _check(row: Any, where: str) -> None:
    if not isinstance(row, Mapping):
        raise UsageError(f"{where} is not a file of results: a line is {str(row)[:40]}, not an object")
    if missing := [name for name in (*_TEXTS, *_COUNTS) if name not in row]:
        raise UsageError(f"{where} is not a file of results: a line lacks {', '.join(missing)}")
    utterance = f"{where}, utterance {row['id']}"
    for name in _TEXTS:
        if not isinstance(row[name], str):
            raise UsageError(f"{utterance}: {name} is {row[name]!r}, not text")
    for name in _COUNTS:
        if type(row[name]) is not int or row[name] < 0:
            raise UsageError(f"{utterance}: {name} is {row[name]!r}, not a count: evaluate or score it again")
    if not isinstance(row.get("probabilities") or [], list):
        raise UsageError(f"{utterance}: probabilities is {row['probabilities']!r}, not a list")


def read_results(folder: Path) -> dict[str, ScoredUtterance]:
    """results.jsonl of a folder, or such a file, by utterance id. Raises UsageError naming file and line."""
    path = folder / RESULTS if folder.is_dir() else folder
    if not path.is_file():
        raise UsageError(f"no {RESULTS} in {folder}: make one with caspi evaluate or caspi score")
    if path.suffix != ".jsonl":
        raise UsageError(f"{path} is not a {RESULTS} file: score it first with caspi score and compare the result")
    found: dict[str, ScoredUtterance] = {}
    for row in read_jsonl(path):
        scored = ScoredUtterance.from_json(row, str(path))
        if scored.pair.id in found:
            raise UsageError(f"{path} contains the utterance {scored.pair.id} twice")
        found[scored.pair.id] = scored
    if not found:
        raise UsageError(f"{path} contains no results")
    return found
