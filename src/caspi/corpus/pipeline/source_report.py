"""What prepare reports: the counts of every source, their totals, and warnings."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from caspi.audio import MEANING, SAMPLE_RATE, Seconds
from caspi.corpus.pipeline.contamination import ComparedSet
from caspi.corpus.pipeline.selection import Selection, SourceRows
from caspi.corpus.pipeline.splits import Splits
from caspi.corpus.signals import SIGNALS
from caspi.corpus.utterance import SPLITS
from caspi.language import lookalikes

_EXAMPLES_PER_REASON = 5
_TELEPHONE_HZ = 4_250  # half of 8 kHz, and one step of the measured bandwidth


@dataclass(frozen=True, slots=True)
class SplitTotal:
    """A split of a source or of the corpus. fingerprint: of its shards."""

    utterances: int
    hours: float
    fingerprint: str


@dataclass(slots=True)
class SourceReport:
    """The result for one source; stored in the corpus's report, and read again when another source is added.

    key: hash of everything its parts depend on. shards: files by split. upsampled: number of utterances whose file
    claims 16 kHz or more, but has only telephone bandwidth.
    """

    kind: str
    name: str
    key: str
    input: int = 0
    kept: int = 0
    synthetic: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[dict[str, str]]] = field(default_factory=dict)
    hours: dict[str, float] = field(default_factory=dict)
    utterances: dict[str, int] = field(default_factory=dict)
    groups: dict[str, int] = field(default_factory=dict)
    boundaries: dict[str, float] = field(default_factory=dict)
    signals: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    shards: dict[str, list[str]] = field(default_factory=dict)
    splits: dict[str, SplitTotal] = field(default_factory=dict)
    upsampled: dict[str, int] = field(default_factory=dict)
    notes: dict[str, int] = field(default_factory=dict)
    licence: str = ""

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> SourceReport:
        """The report of an earlier corpus."""
        splits = {name: SplitTotal(**split) for name, split in values["splits"].items()}
        return cls(**{**values, "splits": splits})


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over sources; `input == kept + sum(rejected)`. rejected_examples: reason -> (id, detail) of a few."""

    input: int
    kept: int
    rejected: dict[str, int]
    rejected_examples: dict[str, list[dict[str, str]]]
    synthetic: int
    hours: float
    hours_by_source: dict[str, float]
    splits: dict[str, SplitTotal]
    licences: dict[str, str]
    warnings: list[str]


@dataclass(frozen=True, slots=True)
class CorpusReport:
    """What prepare made. reused: number of sources taken over from an earlier corpus. decided_with: digest of the rules
    for copies, leaks and splits. seconds: what it took."""

    totals: Totals
    reused: int
    language: str
    text_policy: dict[str, str]
    split_shares: dict[str, Any]
    decided_with: str
    evaluation_sets: list[ComparedSet]
    source_reports: list[SourceReport]
    seconds: Seconds

    def as_json(self) -> dict[str, Any]:
        """The content of report.json; the totals are not nested."""
        content = asdict(self)
        return content.pop("totals") | content


class SourceTally:
    """Counts of one source, by the source name of its utterances."""

    def __init__(self, report: SourceReport) -> None:
        self._report = report
        self._rejected: Counter[str] = Counter()
        self._groups: defaultdict[str, set[str]] = defaultdict(set)
        self._signals: defaultdict[str, defaultdict[str, list[float]]] = defaultdict(lambda: defaultdict(list))

    def add(self, batch: pa.RecordBatch, rows: SourceRows, verdicts: Selection, start: int) -> None:
        report = self._report
        details = batch.column("detail").to_pylist()
        synthetic = batch.column("synthetic").to_pylist()
        rates = batch.column("sample_rate").to_pylist()
        signals = {name: batch.column(name).to_numpy(zero_copy_only=False) for name in SIGNALS}
        for n, detail in enumerate(details):
            row, reason = start + n, verdicts.reason[start + n]
            source = rows.source[row]
            report.input += 1
            if reason:
                self._rejected[reason] += 1
                examples = report.examples.setdefault(reason, [])
                if len(examples) < _EXAMPLES_PER_REASON:
                    shown = detail or f"{rows.seconds[row]:.2f} s: {rows.text[row][:80]}"
                    examples.append({"id": rows.id[row], "detail": shown})
                continue
            report.kept += 1
            for note in (detail or "").split():
                report.notes[note] = report.notes.get(note, 0) + 1
            report.synthetic += bool(synthetic[n])
            report.hours[source] = report.hours.get(source, 0.0) + rows.seconds[row] / 3600
            report.utterances[source] = report.utterances.get(source, 0) + 1
            self._groups[source].add(rows.group[row])
            if rates[n] >= SAMPLE_RATE and signals["bandwidth_hz"][n] <= _TELEPHONE_HZ:
                report.upsampled[source] = report.upsampled.get(source, 0) + 1
            for name, values in signals.items():
                self._signals[source][name].append(float(values[n]))

    def finish(self) -> None:
        self._report.rejected = dict(sorted(self._rejected.items()))
        self._report.groups = {source: len(groups) for source, groups in self._groups.items()}
        self._report.signals = {
            source: {name: np.percentile(values, [5, 50, 95]).tolist() for name, values in found.items()}
            for source, found in self._signals.items()
        }


def corpus_totals(reports: Sequence[SourceReport], shares: Splits) -> Totals:
    """Sums over sources, and warnings. shares: of the splits, as the recipe asks for them."""
    rejected: Counter[str] = Counter()
    examples: dict[str, list[dict[str, str]]] = {}
    hours: Counter[str] = Counter()
    utterances: Counter[str] = Counter()
    groups: Counter[str] = Counter()
    for report in reports:
        rejected.update(report.rejected)
        hours.update(report.hours)
        utterances.update(report.utterances)
        groups.update(report.groups)
        for reason, found in report.examples.items():
            examples[reason] = [*examples.get(reason, []), *found][:_EXAMPLES_PER_REASON]
    return Totals(
        input=sum(report.input for report in reports),
        kept=sum(report.kept for report in reports),
        rejected=dict(sorted(rejected.items())),
        rejected_examples=examples,
        synthetic=sum(report.synthetic for report in reports),
        hours=sum(hours.values()),
        hours_by_source=dict(hours),
        splits={split: _split_total(split, reports) for split in SPLITS},
        licences={source: report.licence for report in reports for source in report.hours if report.licence},
        warnings=list(_warnings(reports, utterances, groups, shares)),
    )


def _split_total(split: str, reports: Sequence[SourceReport]) -> SplitTotal:
    parts = [report.splits[split] for report in reports]
    return SplitTotal(
        sum(part.utterances for part in parts),
        sum(part.hours for part in parts),
        digest(*(part.fingerprint for part in parts if part.utterances)),
    )


def digest(*parts: str) -> str:
    """A hash of several strings, in order."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


# Reasons that, if frequent, point to a problem of the source.
_SUSPICIOUS: dict[str, str] = {
    **{other.reason: "is this the right data set?" for other in lookalikes()},
    "duplicate_id": "ids must differ inside a source",
    "missing_text": "is a .txt beside every file?",
    "missing_audio": "are the files where the manifest says?",
    "bad_row": "are all rows of one kind?",
}
_NOTES: dict[str, str] = {
    **{note: f"audio {meaning}" for note, meaning in MEANING.items()},
    "pointed": "text has vowel points, which are stripped: the rest is not the usual spelling (text.niqqud: keep)",
}


def _warnings(
    reports: Sequence[SourceReport], utterances: Counter[str], groups: Counter[str], shares: Splits
) -> Iterator[str]:
    for source, count in utterances.items():
        if count > 1 and groups[source] == count:
            yield (
                f"{source}: every utterance is its own group, so one speaker may be in two splits; name the field "
                "with the speaker by columns: {speaker: NAME} (group_key of a data set)"
            )
    for report in reports:
        for note, count in report.notes.items():
            yield f"{report.name}: {count:,} of {report.kept:,} kept: {_NOTES[note]}"
        for source, count in report.upsampled.items():
            if count > 0.05 * report.utterances[source]:
                share = count / report.utterances[source]
                held = "have no content above 4 kHz (telephone bandwidth)"
                yield f"{source}: {100 * share:.0f} % claim 16 kHz or more but {held}"
        for reason, what in _SUSPICIOUS.items():
            if report.rejected.get(reason, 0) > 0.05 * report.input:
                example = report.examples[reason][0]
                share = 100 * report.rejected[reason] / report.input
                yield f"{report.name}: {share:.0f} % rejected as {reason}, {what}; for example {example['detail']}"
    hours = {name: sum(report.splits[name].hours for report in reports) for name in ("train", "validation")}
    if hours["train"] > 0 and hours["validation"] == 0 and shares.validation > 0:  # not for a corpus of test data
        yield "no utterance is in validation: raise splits.validation or set splits.min_validation_hours"
