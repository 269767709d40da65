"""Audits a corpus: measures a sample, learns from faults made on purpose what it can find, and estimates how many
transcripts are faulty. It judges only kinds of faults that it finds; and it cannot see a fault that most utterances of
the corpus share, because it then is usual."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from caspi.audio import Seconds
from caspi.audit.calibration import Calibration, Estimate, Sampled, Scorer, Scores, calibrated, estimated, scored
from caspi.audit.faults import ANOTHER
from caspi.audit.measurements import measurements
from caspi.audit.sampling import SampledRow, Sampling, sample
from caspi.audit.signals import Listeners, Signals
from caspi.config import Config, Unit
from caspi.corpus.store import Corpus
from caspi.corpus.utterance import Utterance
from caspi.reporting.wording import percent

Decision = Literal["PROCEED", "CAUTION", "STOP"]
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

    @model_validator(mode="after")
    def _in_order(self) -> AuditConfig:
        if self.proceed_below > self.stop_above:
            raise ValueError(f"proceed_below {self.proceed_below:g} is above stop_above {self.stop_above:g}")
        return self


@dataclass(frozen=True, slots=True)
class AuditedUtterance:
    """flagged: its score is above the threshold. reasons: the signals that say so most; looks_like: the kind of fault
    that its signals are most like."""

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
    looks_like: str
    signals: Signals


@dataclass(frozen=True, slots=True)
class AuditReport:
    """The content of alignment_report.json. parts: source and stratum -> estimate, where there are enough."""

    decision: Decision
    reason: str
    utterances: list[AuditedUtterance]
    calibration: Calibration
    parts: dict[str, Estimate]
    scorer: Scorer

    @property
    def most_suspicious(self) -> list[AuditedUtterance]:
        """All utterances, those with the highest scores first."""
        return sorted(self.utterances, key=lambda one: -one.score)

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
            "apart": self.calibration.apart,
            "scorer": self.scorer.as_json(),
            "strata": {name: asdict(one) for name, one in self.parts.items()},
            "utterances": [asdict(utterance) for utterance in self.utterances],
        }


def audit(corpus: Corpus, listeners: Listeners, config: AuditConfig, cache: Path) -> AuditReport:
    """cache: see `measurements`."""
    rows = sample(corpus, config.sampling)
    own, made = measurements(corpus, rows, listeners, cache, config.sampling.seed)
    scores = scored(own, made)
    utterances = [corpus.utterance(one.row) for one in rows]
    groups = [utterance.group or f"row {one.row}" for one, utterance in zip(rows, utterances, strict=True)]
    sampled = Sampled(np.array([one.weight for one in rows]), np.array(groups))
    calibration = calibrated(scores, sampled)
    decided, reason = decision(calibration, config)
    return AuditReport(
        decided,
        reason,
        [
            _audited(utterances[number], one, number, scores, calibration, own[number])
            for number, one in enumerate(rows)
        ],
        calibration,
        _parts(rows, scores, sampled, calibration.seen),
        scores.scorer,
    )


def decision(found: Calibration, config: AuditConfig) -> tuple[Decision, str]:
    """The decision, and why in one line."""
    if found.faulty is None:
        return "CAUTION", (
            "these models cannot tell right transcripts from faulty ones here, so nothing is judged: give other models"
        )
    faulty, unseen = found.faulty, [kind for kind in found.recall if kind not in found.seen]
    interval = f"[{percent(faulty.low)}, {percent(faulty.high)}]"
    if not found.knows_this_speech:
        return "CAUTION", (
            f"these models do not know such speech: {percent(1 - found.apart)} of transcripts of other utterances look "
            f"as right as the best of the corpus, so their estimate ({percent(faulty.share)} {interval} faulty) says "
            "little; take an aligner or a recogniser that does"
        )
    reason = f"{percent(faulty.share)} of the transcripts have faults of the kinds that are seen {interval}"
    if unseen:
        reason += f"; not seen: {', '.join(unseen)}"
    # Models that do not find the grossest fault, or miss most kinds, never say PROCEED.
    sees_enough = ANOTHER in found.seen and 2 * len(found.seen) >= len(found.recall)
    if faulty.high < config.proceed_below:
        return ("PROCEED" if sees_enough else "CAUTION"), reason
    return ("STOP" if faulty.low > config.stop_above else "CAUTION"), reason


def _parts(rows: Sequence[SampledRow], scores: Scores, sampled: Sampled, seen: Sequence[str]) -> dict[str, Estimate]:
    places: defaultdict[str, list[int]] = defaultdict(list)
    for place, one in enumerate(rows):
        places[one.source].append(place)
        places[f"{one.source}, {one.stratum}"].append(place)
    return {
        name: estimated(scores.own[some], sampled[some], [scores.made[kind] for kind in seen])
        for name, some in sorted(places.items())
        if seen and len(some) >= _FEWEST
    }


def _audited(
    utterance: Utterance, one: SampledRow, number: int, scores: Scores, calibration: Calibration, signals: Signals
) -> AuditedUtterance:
    parts = scores.parts[number]
    reasons = tuple(scores.names[n] for n in np.argsort(-parts)[:_REASONS] if parts[n] > 0)
    score = float(scores.own[number])
    flagged = calibration.faulty is not None and score >= calibration.threshold
    return AuditedUtterance(
        utterance.id, one.row, one.source, one.stratum, one.weight, utterance.text, utterance.seconds, score, flagged,
        reasons if flagged else (), scores.looks_like[number] if flagged else "", signals,
    )  # fmt: skip
