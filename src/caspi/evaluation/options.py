"""What to evaluate and how, as the command line gives it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from caspi.inference.decoding_options import GREEDY, DecodingOptions


@dataclass(frozen=True, slots=True)
class EvaluationOptions:
    """split: of corpora that caspi prepared. limit: maximum number of utterances of each corpus. retention: corpora of
    other languages, reported separately.

    stress: number of utterances of each corpus that are also decoded under every stress condition. context: number that
    are also decoded with hotwords and other context in their system turn. identify: the model identifies the language
    instead of being given it. equivalents: CSV of spellings that count as the same. language:
    of manifest lines that name none. group_key: manifest field that names the speaker.
    """

    split: str = "test"
    limit: int | None = None
    retention: Sequence[str] = ()
    stress: int = 0
    context: int = 0
    identify: bool = False
    decoding: DecodingOptions = GREEDY
    equivalents: Path | None = None
    language: str | None = None
    group_key: str = ""
