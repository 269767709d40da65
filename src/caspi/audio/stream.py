"""Audio while it is decoded, and the warnings about its file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from caspi.audio.base import Seconds

_COMPLETE = 0.98  # share of the declared length from which audio is complete: headers round, codecs pad
SLACK = 0.1  # seconds by which a time may exceed the end of the audio

Note = Literal["ends_early", "more_follows", "gaps", "damaged", "one_channel", "channels_differ", "above_full_scale"]
MEANING: dict[Note, str] = {
    "ends_early": "ends before the length in its header: was it cut off in copying?",
    "more_follows": "has more data than its header says, which is ignored: are these several files in one?",
    "gaps": "has gaps in its time stamps: they are filled with silence",
    "damaged": "is damaged inside: lost parts are filled with silence",
    "one_channel": "has channels that cancel each other: only one is used",
    "channels_differ": "has different sounds on its two channels, which are mixed: set channel if the text is of one",
    "above_full_scale": "has samples above full scale: attenuated to avoid clipping",
}


@dataclass(slots=True)
class Findings:
    """Observations about a file while it is read; complete after the last block.

    seconds: decoded. more_follows: whether there are more bytes than the header describes. gaps: spans that the file's
    time stamps skip, silence in the stream; damaged: whether audio was lost there, because the format has no such gaps.
    only_channel: the only channel used, because the mixed channels cancel each other. dead_channel: whether one channel
    is empty. channels_differ: each of two channels has a different sound.
    """

    seconds: Seconds = 0.0
    more_follows: bool = False
    gaps: list[tuple[Seconds, Seconds]] = field(default_factory=list)
    damaged: bool = False
    only_channel: int | None = None
    dead_channel: bool = False
    channels_differ: bool = False

    def notes(self, declared: Seconds | None) -> list[Note]:
        """The warnings for the user; declared: seconds that the header claims."""
        ends_early = declared is not None and self.seconds < _COMPLETE * declared - SLACK
        candidates: list[tuple[bool, Note]] = [
            (ends_early and not self.more_follows, "ends_early"),
            (self.more_follows, "more_follows"),
            (self.damaged, "damaged"),
            (bool(self.gaps) and not self.damaged, "gaps"),
            (self.only_channel is not None, "one_channel"),
            (self.channels_differ, "channels_differ"),
        ]
        return [note for applies, note in candidates if applies]


@dataclass(frozen=True, slots=True)
class Stream:
    """Audio being decoded: float32 blocks [n], always mono at 16 kHz.

    sample_rate, channels: of the file. declared: seconds that its header claims, None if it claims no length (an
    estimate for an mp3 without one). findings: filled while the blocks are read.
    """

    sample_rate: int
    channels: int
    declared: Seconds | None
    blocks: Iterator[np.ndarray]
    findings: Findings = field(default_factory=Findings)
