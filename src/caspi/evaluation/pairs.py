"""What was said and what a system made of it."""

from __future__ import annotations

from dataclasses import dataclass

from caspi.audio import Seconds


@dataclass(frozen=True, slots=True)
class TranscriptPair:
    """A reference, a hypothesis, and what breakdowns need; None and "" where it is not known.

    group: recording or speaker. snr_db, silence: of the audio (corpus.signals). language: what was spoken;
    named: what the model said it was, where it was asked. condition: of a stress set.
    """

    id: str
    reference: str
    hypothesis: str
    seconds: Seconds | None = None
    source: str = ""
    group: str = ""
    language: str = ""
    named: str = ""
    snr_db: float | None = None
    silence: float | None = None
    truncated: bool = False
    retried: bool = False
    synthetic: bool = False
    condition: str = ""

    @property
    def unit(self) -> tuple[str, str]:
        """What fails together: the group within its source, or the utterance alone."""
        return (self.source, self.group) if self.group else ("", self.id)
