"""New corpora from an earlier one: rows that stay are copied, others are measured and encoded again, the other splits
are linked."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from caspi import audio
from caspi.atomic_output import report_of
from caspi.audio import SAMPLE_RATE, Seconds
from caspi.corpus.dedup import acoustic_fingerprint
from caspi.corpus.signals import measure_signals, spectrogram
from caspi.corpus.store import ROWS_PER_BATCH, SCHEMA, Corpus, ShardWriter, row, with_all_columns
from caspi.corpus.utterance import SPLITS, Utterance

# Of the earlier corpus's report, with what stands for them where it has none.
_KEPT: dict[str, Any] = {"name": "", "language": "Hebrew", "text_policy": {}, "licences": {}, "evaluation_sets": []}


@dataclass(frozen=True, slots=True)
class NewUtterance:
    """An utterance that is a part of earlier ones. rows: of the earlier corpus, whose clips are joined; start, end: in
    seconds of the joined audio; its length and signals are measured when it is written."""

    utterance: Utterance
    rows: tuple[int, ...]
    start: Seconds
    end: Seconds

    def samples(self, corpus: Corpus) -> np.ndarray:
        """float32 [n] at 16 kHz."""
        joined = np.concatenate([corpus.samples(row) for row in self.rows])
        return joined[round(self.start * SAMPLE_RATE) : round(self.end * SAMPLE_RATE)]

    def as_row(self, corpus: Corpus) -> dict[str, Any]:
        """A row of `SCHEMA`."""
        return _measured_row(self.utterance, self.samples(corpus))


def _measured_row(utterance: Utterance, samples: np.ndarray) -> dict[str, Any]:
    pcm, power = audio.pcm16(samples), spectrogram(samples)
    measured = replace(utterance, seconds=len(samples) / SAMPLE_RATE, signals=measure_signals(samples, power))
    exact, words = acoustic_fingerprint.exact(pcm), acoustic_fingerprint.words(power)
    return row(measured, audio.encode_flac(pcm), exact, words.tobytes())


def write_derived(
    corpus: Corpus, partial: Path, replaced: Mapping[int, Sequence[NewUtterance]], untold: frozenset[int] = frozenset()
) -> dict[str, Any]:
    """Writes a corpus in which some rows of one split are replaced by others, or by none, at their place. untold: rows
    that lose their previous text. Returns what its report has in common with that of the earlier corpus."""
    writer, content = ShardWriter(partial, corpus.split), _Content()
    for first, batch in corpus.batches():
        affected = any(n in replaced or n in untold for n in range(first, first + batch.num_rows))
        for written in _changed(corpus, batch, first, replaced, untold) if affected else [with_all_columns(batch)]:
            writer.write(written)
            content.add(written)
    writer.close()
    earlier = report_of(corpus.folder)
    splits: dict[str, dict[str, Any]] = {corpus.split: _total(writer)}
    for split in SPLITS:
        if split != corpus.split:
            for path in sorted(corpus.folder.glob(f"{split}-*.arrow")):
                link(path, partial / path.name)
                for _, batch in Corpus(corpus.folder, split, [path]).batches():
                    content.add(batch)
            if split in earlier.get("splits", {}):
                splits[split] = earlier["splits"][split]
    return {
        **{name: earlier.get(name, missing) for name, missing in _KEPT.items()},
        **content.as_json(splits),
        "made_from": {"corpus": str(corpus.folder), "fingerprints": earlier.get("splits", {})},
    }


class CorpusWriter:
    """Writes utterances as the train split of a new corpus."""

    def __init__(self, partial: Path) -> None:
        self._writer = ShardWriter(partial, "train")
        self._rows: list[dict[str, Any]] = []
        self._content = _Content()

    def add(self, utterance: Utterance, samples: np.ndarray) -> None:
        """samples: float32 [n] at 16 kHz."""
        self._rows.append({**_measured_row(utterance, samples), "position": self._writer.count + len(self._rows)})
        if len(self._rows) == ROWS_PER_BATCH:
            self._flush()

    def _flush(self) -> None:
        batch = pa.RecordBatch.from_pylist(self._rows, schema=SCHEMA)
        self._writer.write(batch)
        self._content.add(batch)
        self._rows = []

    def finish(self) -> dict[str, Any]:
        """What every corpus's report says about its content."""
        if self._rows:
            self._flush()
        self._writer.close()
        return {**_KEPT, **self._content.as_json({"train": _total(self._writer)})}


class _Content:
    """Hours of each source, and synthetic utterances, of the batches of a corpus."""

    def __init__(self) -> None:
        self._hours: dict[str, float] = {}
        self._synthetic = 0

    def add(self, batch: pa.RecordBatch) -> None:
        columns = (batch.column(name).to_pylist() for name in ("source", "seconds", "synthetic"))
        for source, seconds, synthetic in zip(*columns, strict=True):
            self._hours[source] = self._hours.get(source, 0.0) + seconds / 3600
            self._synthetic += bool(synthetic)

    def as_json(self, splits: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
        """splits: those that have utterances."""
        nothing = {"utterances": 0, "hours": 0.0, "fingerprint": ""}
        return {
            "synthetic": self._synthetic,
            "hours": sum(self._hours.values()),
            "hours_by_source": self._hours,
            "splits": {split: splits.get(split, nothing) for split in SPLITS},
        }


def _total(writer: ShardWriter) -> dict[str, Any]:
    return {"utterances": writer.count, "hours": writer.seconds / 3600, "fingerprint": writer.fingerprint}


def _changed(
    corpus: Corpus, batch: pa.RecordBatch, first: int, replaced: Mapping[int, Sequence[NewUtterance]],
    untold: frozenset[int],
) -> list[pa.RecordBatch]:  # fmt: skip
    rows: list[dict[str, Any]] = []
    for number, content in enumerate(with_all_columns(batch).to_pylist(), first):
        if number in replaced:
            rows += [{**one.as_row(corpus), "position": content["position"]} for one in replaced[number]]
        else:
            rows.append({**content, "previous": ""} if number in untold else content)
    return [
        pa.RecordBatch.from_pylist(rows[start : start + ROWS_PER_BATCH], schema=SCHEMA)
        for start in range(0, len(rows), ROWS_PER_BATCH)
    ]


def link(source: Path, target: Path) -> None:
    """A second name of a file that is never changed, or a copy where there are no links."""
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)
