"""Audits a corpus: measures a sample, learns from faults made on purpose what it can find, and estimates how many
transcripts are faulty. It judges only kinds of faults that it finds; and it cannot see a fault that most utterances of
the corpus share, because it then is usual."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from caspi.alignment.align import Aligner
from caspi.atomic_output import read_jsonl
from caspi.audio import Seconds
from caspi.audit.calibration import Calibration, Estimate, Scores, calibrated, estimated, scored
from caspi.audit.faults import FAULTS, Case, Surroundings, spoiled, texts_of_similar_length
from caspi.audit.sampling import SampledRow, Sampling, sample
from caspi.audit.signals import Recogniser, Signals, measured
from caspi.config import Config, Unit
from caspi.corpus.store import Corpus
from caspi.progress import Progress
from caspi.randomness import seeded
from caspi.reporting.wording import percent

Decision = Literal["PROCEED", "CAUTION", "STOP"]
_NEEDED = "another transcript"  # models that do not find it never say PROCEED, nor do those that miss most kinds
_BLOCK = 32  # utterances measured together
_ENOUGH_FAULTS = 100  # of each kind
_ROUNDS = 4  # faults made from one utterance, at most
_REASONS = 3  # signals named for a flagged utterance
_FEWEST = 20  # utterances of a part with an estimate of its own


class AuditConfig(Config):
    """What is audited, and how it is decided."""

    sampling: Sampling = Sampling()
    """Which utterances."""
    proceed_below: Annotated[float, Unit("share")] = Field(0.10, ge=0, le=1)
    """PROCEED if the share of faulty transcripts is surely smaller."""
    stop_above: Annotated[float, Unit("share")] = Field(0.15, ge=0, le=1)
    """STOP if it is surely larger."""


@dataclass(frozen=True, slots=True)
class AuditedUtterance:
    """flagged: its score is above the threshold. reasons: the signals that say so most."""

    id: str
    row: int
    source: str
    stratum: str
    weight: float
    text: str
    seconds: Seconds
    score: float
    flagged: bool
    reasons: tuple[str, ...]
    signals: Signals


@dataclass(frozen=True, slots=True)
class AuditReport:
    """The content of alignment_report.json. parts: source and stratum -> estimate, where there are enough."""

    decision: Decision
    reason: str
    utterances: list[AuditedUtterance]
    calibration: Calibration
    parts: dict[str, Estimate]

    def as_json(self) -> dict[str, Any]:
        faulty = self.calibration.faulty
        return {
            "decision": self.decision,
            "reason": self.reason,
            "sampled": len(self.utterances),
            "low_quality_fraction": faulty.share if faulty else None,
            "low_quality_interval": (faulty.low, faulty.high) if faulty else None,
            "recall": self.calibration.recall,
            "seen": list(self.calibration.seen),
            "threshold": self.calibration.threshold,
            "strata": {name: asdict(one) for name, one in self.parts.items()},
            "utterances": [asdict(utterance) for utterance in self.utterances],
        }


def audit(
    corpus: Corpus, aligner: Aligner | None, recognisers: Sequence[Recogniser], config: AuditConfig, cache: Path
) -> AuditReport:
    """cache: a file that signals are appended to; what it holds is not measured again."""
    rows = sample(corpus, config.sampling)
    own, made = _measured(corpus, rows, aligner, recognisers, cache, config.sampling.seed)
    scores = scored(own, made)
    weights = np.array([one.weight for one in rows])
    calibration = calibrated(scores, weights)
    decision, reason = _decision(calibration, config)
    return AuditReport(
        decision,
        reason,
        [_audited(corpus, one, number, scores, calibration, own[number]) for number, one in enumerate(rows)],
        calibration,
        _parts(rows, scores, weights, calibration.seen),
    )


def _decision(found: Calibration, config: AuditConfig) -> tuple[Decision, str]:
    if found.faulty is None:
        return "CAUTION", (
            "these models cannot tell right transcripts from faulty ones here, so nothing is judged: give other models"
        )
    faulty, unseen = found.faulty, [kind for kind in found.recall if kind not in found.seen]
    reason = f"{percent(faulty.share)} of the transcripts are faulty [{percent(faulty.low)}, {percent(faulty.high)}]"
    if unseen:
        reason += f"; not seen: {', '.join(unseen)}"
    sees_enough = _NEEDED in found.seen and 2 * len(found.seen) >= len(found.recall)
    if faulty.high < config.proceed_below:
        return ("PROCEED" if sees_enough else "CAUTION"), reason
    return ("STOP" if faulty.low > config.stop_above else "CAUTION"), reason


def _parts(rows: Sequence[SampledRow], scores: Scores, weights: np.ndarray, seen: Sequence[str]) -> dict[str, Estimate]:
    places: defaultdict[str, list[int]] = defaultdict(list)
    for place, one in enumerate(rows):
        places[one.source].append(place)
        places[f"{one.source}, {one.stratum}"].append(place)
    return {
        name: estimated(scores.own[some], weights[some], [scores.made[kind] for kind in seen])
        for name, some in sorted(places.items())
        if seen and len(some) >= _FEWEST
    }


def _audited(
    corpus: Corpus, one: SampledRow, number: int, scores: Scores, calibration: Calibration, signals: Signals
) -> AuditedUtterance:
    utterance = corpus.utterance(one.row)
    parts = scores.parts[number]
    reasons = tuple(scores.names[n] for n in np.argsort(-parts)[:_REASONS] if parts[n] > 0)
    score = float(scores.own[number])
    flagged = calibration.faulty is not None and score >= calibration.threshold
    return AuditedUtterance(
        utterance.id, one.row, one.source, one.stratum, one.weight, utterance.text, utterance.seconds, score, flagged,
        reasons if flagged else (), signals,
    )  # fmt: skip


def _measured(
    corpus: Corpus, rows: Sequence[SampledRow], aligner: Aligner | None, recognisers: Sequence[Recogniser],
    cache: Path, seed: int,
) -> tuple[list[Signals], list[tuple[str, int, Signals]]]:  # fmt: skip
    """The signals of every row's own transcript, and of those with faults: kind, number of the row, signals."""
    known = {(line["row"], line["fault"]): line["signals"] for line in read_jsonl(cache)} if cache.is_file() else {}
    cases_of = _Cases(corpus, rows, seed)
    with cache.open("a", encoding="utf-8") as lines, Progress("audit", unit="utterances", total=len(rows)) as progress:
        for first in range(0, len(rows), _BLOCK):
            block = range(first, min(first + _BLOCK, len(rows)))
            if any((rows[number].row, "") not in known for number in block):
                cases = [(number, case) for number in block for case in cases_of(number)]
                for (number, case), signals in zip(
                    cases, measured([case for _, case in cases], aligner, recognisers), strict=True
                ):
                    known[rows[number].row, case.fault] = signals
                    line = {"row": rows[number].row, "fault": case.fault, "signals": signals}
                    lines.write(json.dumps(line) + "\n")
                lines.flush()
            progress.advance(len(block))
    number_of = {one.row: number for number, one in enumerate(rows)}
    own = [known[one.row, ""] for one in rows]
    return own, [(fault, number_of[row], signals) for (row, fault), signals in known.items() if fault]


class _Cases:
    """The cases of a sampled row: its own text, and some faults, so that all kinds are about equally often."""

    def __init__(self, corpus: Corpus, rows: Sequence[SampledRow], seed: int) -> None:
        self._corpus, self._rows, self._seed = corpus, rows, seed
        self._utterances = [corpus.utterance(one.row) for one in rows]
        self._others = texts_of_similar_length([utterance.text for utterance in self._utterances])
        self._rounds = min(_ROUNDS, -(-_ENOUGH_FAULTS * len(FAULTS) // max(1, len(rows))))

    def __call__(self, number: int) -> Iterator[Case]:
        utterance, row = self._utterances[number], self._rows[number].row
        own = Case(self._corpus.samples(row), utterance.text, utterance.language)
        yield own
        draw = seeded(self._seed, row)
        around = Surroundings(
            self._others[number], self._following(number), self._corpus.samples(self._rows[number - 1].row)
        )
        kinds = list(FAULTS)
        first = number * self._rounds
        made = 0
        for step in range(len(kinds)):
            case = spoiled(own, kinds[(first + step) % len(kinds)], around, draw)
            if case is not None:
                yield case
                made += 1
            if made == self._rounds:
                return

    def _following(self, number: int) -> str:
        row, utterance = self._rows[number].row + 1, self._utterances[number]
        if row >= len(self._corpus) or not utterance.group:
            return ""
        following = self._corpus.utterance(row)
        return following.text if following.group == utterance.group else ""
