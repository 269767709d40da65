"""The results of training, with types; `as_json` is their form in reports and files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Self, TypeAlias

from caspi.audio import Seconds
from caspi.model.groups import TrainedGroup
from caspi.reporting.wording import percent, rate

_BY_LANGUAGE = "wer/"


@dataclass(frozen=True, slots=True)
class Measurement:
    """An in-training evaluation. loss: per target token. wer, cer: of the language that is trained, fractions.
    truncated: share of hypotheses that reached the token limit. by_language: WER of each, if the split has several.
    errors, words, groups: of every utterance that `wer` is of, groups by number; for comparisons, not for reports."""

    loss: float
    wer: float
    cer: float
    truncated: float
    by_language: dict[str, float] = field(default_factory=dict)
    errors: tuple[int, ...] = ()
    words: tuple[int, ...] = ()
    groups: tuple[int, ...] = ()

    @property
    def quality(self) -> tuple[float, float]:
        """The key by which models are ranked, lower is better: WER, then loss."""
        return self.wer, self.loss

    @property
    def by_utterance(self) -> dict[str, tuple[int, ...]]:
        """What `caspi search` compares runs by."""
        return {"errors": self.errors, "words": self.words, "groups": self.groups}

    @property
    def figures(self) -> dict[str, str]:
        """Name -> figure, for people."""
        languages = {f"WER {name}": rate(value) for name, value in self.by_language.items()}
        return {"WER": rate(self.wer), "CER": rate(self.cer), **languages, "loss": f"{self.loss:.4f}"}

    def as_json(self) -> dict[str, float]:
        """`{"loss": ..., "wer": ..., "cer": ..., "truncated": ..., "wer/Spanish": ...}`."""
        named = {f"{_BY_LANGUAGE}{name}": value for name, value in self.by_language.items()}
        return {"loss": self.loss, "wer": self.wer, "cer": self.cer, **named, "truncated": self.truncated}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self | None:
        """None if nothing was measured."""
        if "wer" not in values:
            return None
        named = {key.removeprefix(_BY_LANGUAGE): value for key, value in values.items() if key.startswith(_BY_LANGUAGE)}
        return cls(values["loss"], values["wer"], values.get("cer", 0.0), values.get("truncated", 0.0), named)


@dataclass(frozen=True, slots=True)
class AlignmentMeasurement:
    """An in-training evaluation of an aligner. loss: per slot. start_shift, end_shift: mean distance of the times of
    words from the true ones. within_80_ms: share of all times."""

    loss: float
    start_shift: Seconds
    end_shift: Seconds
    within_80_ms: float

    @property
    def quality(self) -> tuple[float, float]:
        """The key by which models are ranked, lower is better: mean shift, then loss."""
        return (self.start_shift + self.end_shift) / 2, self.loss

    @property
    def figures(self) -> dict[str, str]:
        """Name -> figure, for people."""
        return {
            "starts": f"{1000 * self.start_shift:.0f} ms",
            "ends": f"{1000 * self.end_shift:.0f} ms",
            "within 80 ms": percent(self.within_80_ms),
            "loss": f"{self.loss:.4f}",
        }

    def as_json(self) -> dict[str, float]:
        return asdict(self)


AnyMeasurement: TypeAlias = Measurement | AlignmentMeasurement


def measurement_from_json(values: Mapping[str, Any]) -> AnyMeasurement | None:
    """None if nothing was measured."""
    if "start_shift" in values:
        return AlignmentMeasurement(*(values[field.name] for field in fields(AlignmentMeasurement)))
    return Measurement.from_json(values)


@dataclass(frozen=True, slots=True)
class CheckpointResult:
    """A checkpoint on disk. measured: None if the run was interrupted before the evaluation."""

    path: Path
    step: int
    measured: AnyMeasurement | None

    def as_json(self) -> dict[str, Any]:
        measured = self.measured.as_json() if self.measured is not None else {}
        return {"path": str(self.path), "step": self.step, **measured}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        return cls(Path(values["path"]), values["step"], measurement_from_json(values))


@dataclass(frozen=True, slots=True)
class StageResult:
    """A stage that was trained to its end. seconds: of its last session. replaced: number of utterances that could
    not be read."""

    name: str
    path: Path
    steps: int
    audio_hours: float
    groups: list[TrainedGroup]
    seconds: Seconds
    replaced: int
    checkpoints: list[CheckpointResult]

    @property
    def measured(self) -> AnyMeasurement:
        """The evaluation of the last checkpoint."""
        last = self.checkpoints[-1].measured
        assert last is not None  # a stage that was trained to its end was measured
        return last

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "path": str(self.path),
            "steps": self.steps,
            "audio_hours": self.audio_hours,
            "groups": [asdict(group) for group in self.groups],
            "seconds": self.seconds,
            "replaced": self.replaced,
            "checkpoints": [checkpoint.as_json() for checkpoint in self.checkpoints],
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        return cls(
            values["name"],
            Path(values["path"]),
            values["steps"],
            values["audio_hours"],
            [TrainedGroup(**group) for group in values["groups"]],
            values["seconds"],
            values["replaced"],
            [CheckpointResult.from_json(one) for one in values["checkpoints"]],
        )
