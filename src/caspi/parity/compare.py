"""The texts of several backends against those of the first, and all against the corpus."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from caspi.audio import Seconds
from caspi.errors import CaspiError, first_line
from caspi.language import language
from caspi.parity.backends import Backend
from caspi.parity.clips import ParityClip
from caspi.scoring.error_rates import Score, score_corpus


@dataclass(frozen=True, slots=True)
class DifferentClip:
    """A clip to which two backends give different texts."""

    id: str
    seconds: Seconds
    reference: str
    first: str
    other: str


@dataclass(frozen=True, slots=True)
class BackendResult:
    """score: by the leaderboard's rules; None if the backend failed, which `error` says. difference: of its WER to the
    first backend's. apart: WER of its texts with the first backend's as references. different: clips whose text is not
    the first backend's."""

    name: str
    about: str
    score: Score | None
    difference: float
    apart: float
    different: tuple[DifferentClip, ...]
    seconds: Seconds
    error: str = ""

    def within(self, limit: float) -> bool:
        return self.score is not None and abs(self.difference) <= limit


@dataclass(frozen=True, slots=True)
class ParityResult:
    """limit: of the difference in WER."""

    backends: tuple[BackendResult, ...]
    clips: int
    seconds: Seconds
    longest: Seconds
    limit: float

    @property
    def failed(self) -> list[BackendResult]:
        """The backends that gave no texts."""
        return [result for result in self.backends if result.score is None]

    @property
    def outside(self) -> list[BackendResult]:
        """The backends whose WER differs by more than the limit."""
        return [result for result in self.backends if result.score is not None and not result.within(self.limit)]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def compare(clips: Sequence[ParityClip], backends: Sequence[Backend], limit: float) -> ParityResult:
    """Runs the backends one after another. One that fails is reported and does not stop the others, except the first,
    whose error is raised."""
    results: list[BackendResult] = []
    first: list[str] = []
    for backend in backends:
        started = time.monotonic()
        try:
            texts = _texts(backend, clips)
        except Exception as error:  # whatever another program raises
            if not results:
                raise
            seconds = time.monotonic() - started
            results.append(BackendResult(backend.name, backend.about, None, 0.0, 0.0, (), seconds, first_line(error)))
            continue
        first = first or texts
        base = results[0].score if results else None
        results.append(_result(backend, clips, first, texts, base, time.monotonic() - started))
    lengths = [clip.seconds for clip in clips]
    return ParityResult(tuple(results), len(clips), sum(lengths), max(lengths), limit)


def _texts(backend: Backend, clips: Sequence[ParityClip]) -> list[str]:
    texts = backend.recognise(clips)
    if len(texts) != len(clips):
        raise CaspiError(f"{len(texts)} texts for {len(clips)} clips")
    return texts


def _result(
    backend: Backend, clips: Sequence[ParityClip], first: list[str], texts: list[str], base: Score | None, took: Seconds
) -> BackendResult:
    groups, languages = [clip.group for clip in clips], [language(clip.language) for clip in clips]
    score = score_corpus([clip.text for clip in clips], texts, groups, languages)["leaderboard"]
    apart = score_corpus(first, texts, groups, languages)["leaderboard"].wer
    different = tuple(
        DifferentClip(clip.id, clip.seconds, clip.text, one, other)
        for clip, one, other in zip(clips, first, texts, strict=True)
        if one != other
    )
    return BackendResult(backend.name, backend.about, score, score.wer - (base or score).wer, apart, different, took)
