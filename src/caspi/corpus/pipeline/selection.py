"""Decisions that need the whole corpus: copies, leaks, unusual speaking rates, splits.

Sources are processed one after another, in the order of the recipe, so that appending a source changes nothing for the
earlier ones.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from caspi.corpus.dedup.near_duplicates import AudioCopies, EvaluationSets, TextRepeats, is_long_enough_to_repeat
from caspi.corpus.pipeline import shards
from caspi.corpus.pipeline.filters import Filters, Reason
from caspi.corpus.pipeline.splits import Splits, boundary_of, split_of
from caspi.corpus.utterance import Split
from caspi.errors import UsageError
from caspi.language import language

_COLUMNS = (
    "reason",
    "id",
    "text",
    "seconds",
    "group",
    "language",
    "split",
    "audio_hash",
    "fingerprint",
    "shifted",
    "source",
    "position",
    "previous",
    "labelled",
)
_ENOUGH_FOR_A_RATE = 50  # minimum number of utterances to estimate the speaking rate of a source


@dataclass(slots=True)
class SourceRows:
    """The columns that decisions need, one entry per outcome, in order."""

    reason: list[str | None] = field(default_factory=list)
    id: list[str] = field(default_factory=list)
    text: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    group: list[str] = field(default_factory=list)
    language: list[str] = field(default_factory=list)
    split: list[Split | None] = field(default_factory=list)
    audio_hash: list[bytes] = field(default_factory=list)
    fingerprint: list[bytes] = field(default_factory=list)
    shifted: list[bytes] = field(default_factory=list)
    source: list[str] = field(default_factory=list)
    position: list[int | None] = field(default_factory=list)
    previous: list[str] = field(default_factory=list)
    labelled: list[bool] = field(default_factory=list)

    @classmethod
    def read(cls, paths: Iterable[Path]) -> SourceRows:
        rows = cls()
        for path in paths:
            for batch in shards.read_shard(path):
                rows.extend(batch)
        return rows

    def extend(self, batch: pa.RecordBatch, split: Split | None = None) -> None:
        """Appends a batch of parts, or one of a finished corpus's `split`, whose rows have no reason."""
        for name in _COLUMNS:
            known = name in batch.schema.names
            missing = split if name == "split" else None
            getattr(self, name).extend(batch.column(name).to_pylist() if known else [missing] * batch.num_rows)


@dataclass(frozen=True, slots=True)
class Selection:
    """reason: None for a kept utterance; then its id, split, repeat count, and whether its previous text may be used.

    boundaries: where validation ends, by source.
    """

    reason: list[Reason | None]
    id: list[str]
    previous: list[bool]
    split: list[Split]
    repeat: list[int]
    boundaries: dict[str, float]


class Selector:
    """Decides source by source, and keeps the state of the earlier sources."""

    def __init__(
        self, filters: Filters, splits: Splits, evaluation: EvaluationSets, drawn: dict[str, float] | None = None
    ) -> None:
        self._filters, self._splits, self._evaluation = filters, splits, evaluation
        self._drawn = dict(drawn or {})
        self._ids: set[str] = set()
        self._split_of: dict[int, Split] = {}  # by the hash of each group's name: a split never divides a group
        self._copies = AudioCopies()
        self._repeats = TextRepeats()
        self._held_out = EvaluationSets()  # audio of validation and test
        self._has_labels = False

    def remember(self, rows: SourceRows) -> None:
        """Adds the utterances of a source that was decided in an earlier run, in their original order."""
        for n in sorted(range(len(rows.id)), key=lambda n: rows.position[n] or 0):
            self._ids.add(rows.id[n])
            split = rows.split[n] or "train"
            self._split_of[hash(rows.group[n])] = split
            self._has_labels |= bool(rows.labelled[n])
            self._hold_out(rows, n, split)
            compared = _compared(rows, n)
            self._copies.add(rows.audio_hash[n], np.frombuffer(rows.fingerprint[n], np.uint16), compared)
            self._repeats.add(compared)

    def decide(self, rows: SourceRows) -> Selection:
        """Decides the outcomes of one source."""
        rates = _odd_rates(rows, self._filters.rate_deviations)
        others = frozenset(self._ids)
        names = [f"{rows.source[n]}/{name}" if name in others else name for n, name in enumerate(rows.id)]
        reasons: list[Reason | None] = []
        repeats: list[int] = []
        for n in range(len(rows.id)):
            reason, repeat = self._judge(rows, n, names[n], rates.get(n))
            reasons.append(reason)
            repeats.append(repeat)
        boundaries = self._boundaries(rows, reasons)
        self._drawn |= boundaries  # a source of the same name reuses its boundary
        split = self._splits_of(rows, reasons, boundaries)
        previous = [self._may_be_told(rows, reasons, n) for n in range(len(rows.id))]
        return Selection(reasons, names, previous, split, repeats, boundaries)

    def _splits_of(self, rows: SourceRows, reasons: list[Reason | None], boundaries: dict[str, float]) -> list[Split]:
        """The split of every row. A group keeps its first split, from an earlier source or from its source's setting.

        Raises UsageError if a source sets a split for a group that is already in another one.
        """
        furthest: dict[str, float] = {}
        for n, reason in enumerate(reasons):
            if reason is None:
                group = rows.group[n]
                furthest[group] = max(furthest.get(group, 0.0), boundaries.get(rows.source[n], 0.0))
        found: list[Split] = ["train"] * len(reasons)
        for n in sorted(range(len(reasons)), key=lambda n: bool(rows.labelled[n])):  # labels last
            if reasons[n] is not None:
                continue
            group, wanted = rows.group[n], rows.split[n]
            if rows.labelled[n]:
                self._has_labels = True
                if self._is_held_out(rows, n):
                    reasons[n] = "held_out"
                    continue
            stands = self._split_of.setdefault(
                hash(group), wanted or split_of(group, self._splits, furthest[group] or None)
            )
            if wanted and wanted != stands:
                raise UsageError(
                    f"group {group} is already in {stands}, but its source sets split: {wanted}. A group can be in one "
                    "split only: put the source that sets `split` first, or give the sources different names"
                )
            found[n] = stands
            self._hold_out(rows, n, stands)
        return found

    def _is_held_out(self, rows: SourceRows, n: int) -> bool:
        """Whether a label is of a speaker, a recording or audio with transcripts of people in validation or test."""
        if self._split_of.get(hash(rows.group[n]), "train") != "train":
            return True
        return any(self._held_out.has_audio(words) for words in _phases(rows, n))

    def _hold_out(self, rows: SourceRows, n: int, split: Split) -> None:
        """Keeps the audio of validation and test away from labels. Raises UsageError if labels were there first."""
        if split == "train":
            return
        if self._has_labels:
            raise UsageError(
                f"source {rows.source[n]} has {split} data, but comes after labels of recognisers, which may be of the "
                "same audio: put the source with labels last in corpus.sources"
            )
        self._held_out.add(rows.audio_hash[n], _phases(rows, n), "")

    def _may_be_told(self, rows: SourceRows, reasons: list[Reason | None], n: int) -> bool:
        """Whether the previous text may be in the prompt of an utterance: not if it was rejected or is test data."""
        previous = rows.previous[n]
        if not previous:
            return True
        if n and reasons[n - 1] and rows.text[n - 1] == previous:
            return False
        fair = language(rows.language[n]).normalisers["fair"]
        return not self._evaluation.leaks(b"previous", np.zeros(0, np.uint16), fair(previous))

    def _judge(self, rows: SourceRows, n: int, name: str, odd_rate: Reason | None) -> tuple[Reason | None, int]:
        if rows.reason[n]:
            return rows.reason[n], 0  # type: ignore[return-value]
        if odd_rate:
            return odd_rate, 0
        words = np.frombuffer(rows.fingerprint[n], np.uint16)
        compared = _compared(rows, n)
        if self._evaluation.leaks(rows.audio_hash[n], words, compared):
            return "leak", 0
        # Rejected utterances leave no state: for a source of an earlier run, only the kept ones are known.
        repeat = self._repeats.before(compared)
        if repeat >= self._filters.max_repeats and is_long_enough_to_repeat(compared):
            return "repeated_text", repeat
        if self._copies.is_copy(rows.audio_hash[n], (words, np.frombuffer(rows.shifted[n], np.uint16)), compared):
            return "duplicate_audio", 0
        if name in self._ids:
            return "duplicate_id", 0
        self._copies.add(rows.audio_hash[n], words, compared)
        self._repeats.add(compared)
        self._ids.add(name)
        return None, repeat

    def _boundaries(self, rows: SourceRows, reasons: list[Reason | None]) -> dict[str, float]:
        hours: defaultdict[str, defaultdict[str, float]] = defaultdict(lambda: defaultdict(float))
        for n, reason in enumerate(reasons):
            if reason is None and rows.split[n] is None:
                hours[rows.source[n]][rows.group[n]] += rows.seconds[n] / 3600
        return {
            source: boundary_of(groups, self._splits, self._drawn.get(source, 0.0)) for source, groups in hours.items()
        }


def _phases(rows: SourceRows, n: int) -> list[np.ndarray]:
    """The fingerprints of an utterance: of its frames and, unless it was kept in an earlier run, half a frame later."""
    found = (rows.fingerprint[n], rows.shifted[n])
    return [np.frombuffer(words, np.uint16) for words in found if words]


def _compared(rows: SourceRows, n: int) -> str:
    """The text normalised for comparison: without anything that is not audible."""
    return language(rows.language[n]).normalisers["fair"](rows.text[n])


def _odd_rates(rows: SourceRows, deviations: float) -> dict[int, Reason]:
    """Utterances whose characters per second are too many robust deviations from the median of their source.

    Uses the logarithm, its median, and 1.4826 times the median absolute deviation. Clips under two seconds are skipped,
    because the length of one word says nothing about the rate.
    """
    by_source: defaultdict[str, list[int]] = defaultdict(list)
    for n, reason in enumerate(rows.reason):
        if reason is None and rows.seconds[n] >= 2.0:
            by_source[rows.source[n]].append(n)
    found: dict[int, Reason] = {}
    for numbers in by_source.values():
        if deviations == 0 or len(numbers) < _ENOUGH_FOR_A_RATE:
            continue
        rates = np.log([len(rows.text[n]) / rows.seconds[n] for n in numbers])
        median = np.median(rates)
        # At least 10 %: a source read at a constant speed would otherwise reject its normal variation.
        spread = max(0.1, 1.4826 * float(np.median(np.abs(rates - median))))
        for n, rate in zip(numbers, rates, strict=True):
            if abs(rate - median) > deviations * spread:
                found[n] = "too_fast" if rate > median else "too_slow"
    return found
