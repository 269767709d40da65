"""Inspects a corpus: counts, distributions, utterances to listen to."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from caspi.atomic_output import REPORT, stage_of
from caspi.corpus.signals import SIGNALS
from caspi.corpus.store import METADATA, Corpus
from caspi.corpus.utterance import SPLITS, Split, Utterance
from caspi.errors import UsageError
from caspi.randomness import seeded

_MAKERS = ("prepare", "repair", "label")  # stages that make corpora
_PERCENTILES = (0, 5, 25, 50, 75, 95, 100)


def splits_of(folder: Path) -> list[Corpus]:
    """The non-empty splits. Raises UsageError if the folder is not a corpus."""
    if stage_of(folder) not in _MAKERS:
        raise UsageError(f"{folder} is not a corpus: make one with caspi prepare RECIPE")
    return [Corpus.open(folder, split) for split in SPLITS if any(folder.glob(f"{split}-*.arrow"))]


@dataclass(frozen=True, slots=True)
class SplitInfo:
    """A split. bytes: of its shards."""

    utterances: int
    hours: float
    groups: int
    bytes: int


@dataclass(frozen=True, slots=True)
class CorpusInfo:
    """What a corpus holds. columns: of every utterance. distributions: name -> its values at `percentiles`."""

    folder: str
    splits: dict[str, SplitInfo]
    hours_by_source: dict[str, float]
    rejected: dict[str, int]
    text_policy: dict[str, str]
    columns: tuple[str, ...]
    percentiles: tuple[int, ...]
    distributions: dict[str, list[float]]


def corpus_info(folder: Path) -> CorpusInfo:
    """Hours and utterances by split, source and group; distributions of lengths, rates and signals."""
    report = json.loads((folder / REPORT).read_text(encoding="utf-8")) if (folder / REPORT).is_file() else {}
    opened = splits_of(folder)
    seconds = np.concatenate([split.numbers("seconds") for split in opened])
    texts = [text for split in opened for text in split.column("text")]
    distributions = {
        "seconds": seconds,
        "characters_per_second": np.array([len(text) for text in texts]) / seconds,
        **{name: np.concatenate([split.numbers(name) for split in opened]) for name in SIGNALS},
    }
    return CorpusInfo(
        folder=str(folder),
        splits={
            split.split: SplitInfo(
                utterances=len(split),
                hours=float(split.numbers("seconds").sum()) / 3600,
                groups=len(set(split.column("group"))),
                bytes=sum(path.stat().st_size for path in folder.glob(f"{split.split}-*.arrow")),
            )
            for split in opened
        },
        hours_by_source=report.get("hours_by_source", {}),
        rejected=report.get("rejected", {}),
        text_policy=report.get("text_policy", {}),
        columns=tuple(METADATA),
        percentiles=_PERCENTILES,
        distributions={
            name: np.percentile(values[np.isfinite(values)], _PERCENTILES).tolist() if len(values) else []
            for name, values in distributions.items()
        },
    )


@dataclass(frozen=True, slots=True)
class SampledUtterance:
    """An utterance to listen to."""

    split: Split
    utterance: Utterance
    flac: bytes


def draw_utterances(folder: Path, count: int, seed: int, split: Split | None = None) -> list[SampledUtterance]:
    """`count` utterances drawn uniformly from all splits, or from one split."""
    opened = [corpus for corpus in splits_of(folder) if split in (None, corpus.split)]
    if not opened:
        raise UsageError(f"corpus {folder} has no utterances in its {split} split")
    where = [(corpus, row) for corpus in opened for row in range(len(corpus))]
    chosen = seeded(seed).permutation(len(where))[:count]
    return [
        SampledUtterance(where[n][0].split, where[n][0].utterance(where[n][1]), where[n][0].flac(where[n][1]))
        for n in chosen
    ]
