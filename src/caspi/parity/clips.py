"""The clips that every backend recognises: always some beyond one window of the encoder (8 s), and some beyond one
window of a recording (30 s), because that is where implementations differ."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from caspi.audio import SAMPLE_RATE, Seconds
from caspi.corpus.store import Corpus
from caspi.corpus.utterance import Utterance
from caspi.errors import UsageError
from caspi.inference.transcriber import is_silent

LENGTHS: tuple[Seconds, ...] = (30.5, 8.5)
_SHARE = 10  # of all clips one in ten is of each length, but at least two
_PAUSE = np.zeros(SAMPLE_RATE // 2, np.float32)


@dataclass(frozen=True, slots=True)
class ParityClip:
    """samples: float32 [n] at 16 kHz. text: of the corpus. group: recording or speaker, for intervals."""

    id: str
    samples: np.ndarray
    text: str
    language: str
    context: str
    group: str

    @property
    def seconds(self) -> Seconds:
        return len(self.samples) / SAMPLE_RATE


def chosen(corpus: Corpus, count: int) -> list[ParityClip]:
    """`count` clips of a corpus, of its languages in turn. Long ones are joined from consecutive utterances with pauses
    of half a second where the corpus has none. Raises UsageError if the corpus is too short for that."""
    of_row = corpus.column("language")
    languages = [_Sounding(corpus, [row for row, of in enumerate(of_row) if of == one]) for one in sorted(set(of_row))]
    turn = itertools.cycle(languages)
    each = max(2, count // _SHARE)
    wanted = [seconds for seconds in LENGTHS for _ in range(each)]
    wanted += [0.0] * (count - len(wanted))
    found: list[ParityClip] = []
    for seconds in wanted:
        tried = (next(turn).clip(seconds) for _ in languages)
        found += itertools.islice((clip for clip in tried if clip is not None), 1)
    if len(found) < count:
        raise UsageError(
            f"{corpus.folder} is too small for {count} clips of which {each} are longer than {LENGTHS[0]:.0f} s and "
            f"{each} longer than {LENGTHS[1]:.0f} s: give a larger corpus, or another number of --clips"
        )
    return found


class _Sounding:
    """The utterances of one language that are not silent, each taken once."""

    def __init__(self, corpus: Corpus, rows: Sequence[int]) -> None:
        self._corpus, self._rows = corpus, deque(rows)

    def clip(self, seconds: Seconds) -> ParityClip | None:
        """The next utterances, as many as are longer than `seconds` together; None if there are not enough."""
        parts: list[tuple[Utterance, np.ndarray]] = []
        for taken, row in enumerate(self._rows, 1):
            samples = self._corpus.samples(row)
            if is_silent(samples):
                continue
            parts.append((self._corpus.utterance(row), samples))
            if sum(len(part) for _, part in parts) + (len(parts) - 1) * len(_PAUSE) > seconds * SAMPLE_RATE:
                for _ in range(taken):
                    self._rows.popleft()
                return _joined(parts)
        return None


def _joined(parts: Sequence[tuple[Utterance, np.ndarray]]) -> ParityClip:
    pieces = [piece for _, samples in parts for piece in (samples, _PAUSE)][:-1]
    first, last = parts[0][0], parts[-1][0]
    return ParityClip(
        id=first.id if len(parts) == 1 else f"{first.id} to {last.id}",
        samples=np.concatenate(pieces).astype(np.float32),
        text=" ".join(utterance.text for utterance, _ in parts),
        language=first.language,
        context=first.context,
        group=first.group or first.id,
    )
