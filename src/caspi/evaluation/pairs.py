"""Pairs of a reference and a system's hypothesis."""

from __future__ import annotations

from dataclasses import dataclass

from caspi.audio import Seconds


@dataclass(frozen=True, slots=True)
class TranscriptPair:
    """A reference, a hypothesis, and the fields that breakdowns need; None and "" if unknown.

    group: recording or speaker. snr_db, silence: of the audio (corpus.signals). language: what was spoken;
    named: the language that the model identified, if it was asked to, and its probability. probabilities: of the
    hypothesis' words, in order. condition: of a stress set.
    """

    id: str
    reference: str
    hypothesis: str
    seconds: Seconds | None = None
    source: str = ""
    group: str = ""
    language: str = ""
    named: str = ""
    named_probability: float | None = None
    probabilities: tuple[float, ...] = ()
    snr_db: float | None = None
    silence: float | None = None
    truncated: bool = False
    retried: bool = False
    guarded: bool = False
    synthetic: bool = False
    condition: str = ""

    @property
    def unit(self) -> tuple[str, str]:
        """The unit of correlated errors: the group within its source, or the utterance alone."""
        return (self.source, self.group) if self.group else ("", self.id)
