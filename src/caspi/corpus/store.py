"""The corpus on disk: Arrow files of FLAC and text, memory-mapped, read by row.

`train-00000.arrow`, `validation-00000.arrow`, ...: Arrow IPC files, whose footer makes opening independent of
size. Plain `datasets` reads them: `load_dataset("arrow", data_files={"train": "CORPUS/train-*.arrow"})`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa

from caspi import audio
from caspi.corpus.utterance import Split, Utterance, Word
from caspi.errors import UsageError
from caspi.folders import REPORT

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("audio", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("text", pa.string()),
        ("seconds", pa.float64()),
        ("source", pa.string()),
        ("group", pa.string()),
        ("language", pa.string()),
        ("context", pa.string()),
        ("words", pa.list_(pa.struct([("text", pa.string()), ("start", pa.float64()), ("end", pa.float64())]))),
        ("synthetic", pa.bool_()),
    ]
)
ROWS_PER_BATCH = 64
BYTES_PER_SHARD = 1 << 30


class SplitWriter:
    """Writes the shards of one split; `fingerprint` is a hash of all that was written, in order."""

    def __init__(self, folder: Path, split: Split) -> None:
        self._folder, self._split = folder, split
        self._rows: list[dict[str, Any]] = []
        self._writer: pa.RecordBatchFileWriter | None = None
        self._shard = self._shard_bytes = 0
        self._hash = hashlib.sha256()
        self.count = 0
        self.seconds = 0.0

    @property
    def fingerprint(self) -> str:
        return self._hash.hexdigest()

    def add(self, utterance: Utterance, flac: bytes) -> None:
        """Appends one utterance with its encoded audio."""
        row = {name: getattr(utterance, name) for name in SCHEMA.names if name not in ("audio", "words")}
        row["audio"] = {"bytes": flac, "path": f"{utterance.id}.flac"}
        row["words"] = [word._asdict() for word in utterance.words]
        self._rows.append(row)
        self._hash.update(utterance.id.encode() + b"\0" + utterance.text.encode() + b"\0" + flac)
        self.count += 1
        self.seconds += utterance.seconds
        self._shard_bytes += len(flac)
        if len(self._rows) >= ROWS_PER_BATCH:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            if self._writer is None:
                path = self._folder / f"{self._split}-{self._shard:05d}.arrow"
                self._writer = pa.ipc.new_file(str(path), SCHEMA)
            self._writer.write_batch(pa.RecordBatch.from_pylist(self._rows, schema=SCHEMA))
            self._rows.clear()
        if self._writer is not None and self._shard_bytes >= BYTES_PER_SHARD:
            self._close_shard()

    def _close_shard(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer, self._shard, self._shard_bytes = None, self._shard + 1, 0

    def close(self) -> None:
        """Writes what is left and the footer, without which a shard cannot be read."""
        self._flush()
        self._close_shard()


class Corpus:
    """One split, random access by row. Metadata columns are read without touching audio."""

    def __init__(self, folder: Path, split: Split, shards: Sequence[pa.RecordBatchFileReader]) -> None:
        self.folder, self.split = folder, split
        self._shards = shards
        self._locations: list[tuple[int, int]] = [
            (number, batch) for number, shard in enumerate(shards) for batch in range(shard.num_record_batches)
        ]
        self._ends: np.ndarray | None = None

    @classmethod
    def open(cls, folder: Path, split: Split) -> Self:
        """Raises UsageError where the folder is no corpus or the split is empty."""
        folder = Path(folder)
        if not (folder / REPORT).is_file():
            raise UsageError(f"{folder} is not a corpus (it has no {REPORT}): make one with caspi prepare RECIPE")
        paths = sorted(folder.glob(f"{split}-*.arrow"))
        if not paths:
            raise UsageError(f"corpus {folder} has no utterances in its {split} split; see {folder / 'report.html'}")
        try:
            return cls(folder, split, [pa.ipc.open_file(pa.memory_map(str(path))) for path in paths])
        except pa.ArrowInvalid as error:
            raise UsageError(f"corpus {folder}: a shard is damaged ({error}); run caspi prepare again") from error

    def __getstate__(self) -> tuple[Path, Split]:
        return self.folder, self.split

    def __setstate__(self, state: tuple[Path, Split]) -> None:
        self.__dict__ = type(self).open(*state).__dict__

    def _batch(self, index: int) -> pa.RecordBatch:
        number, batch = self._locations[index]
        return self._shards[number].get_batch(batch)

    def _batch_ends(self) -> np.ndarray:
        if self._ends is None:
            self._ends = np.cumsum([self._batch(i).num_rows for i in range(len(self._locations))])
        return self._ends

    def __len__(self) -> int:
        return int(self._batch_ends()[-1])

    def column(self, name: str) -> list[Any]:
        """One metadata column of the whole split, in row order."""
        return [value for i in range(len(self._locations)) for value in self._batch(i).column(name).to_pylist()]

    def numbers(self, name: str) -> np.ndarray:
        """A numeric column of the whole split."""
        return np.concatenate([self._batch(i).column(name).to_numpy() for i in range(len(self._locations))])

    def _locate(self, row: int) -> tuple[pa.RecordBatch, int]:
        ends = self._batch_ends()
        if not 0 <= row < ends[-1]:
            raise IndexError(row)
        index = int(np.searchsorted(ends, row, side="right"))
        return self._batch(index), row - (int(ends[index - 1]) if index else 0)

    def utterance(self, row: int) -> Utterance:
        """The record of a row, without its audio."""
        batch, offset = self._locate(row)
        values = {name: batch.column(name)[offset].as_py() for name in SCHEMA.names if name != "audio"}
        values["words"] = tuple(Word(**word) for word in values["words"])
        return Utterance(**values)

    def flac(self, row: int) -> bytes:
        """The encoded audio of a row."""
        batch, offset = self._locate(row)
        data: bytes = batch.column("audio")[offset]["bytes"].as_py()
        return data

    def samples(self, row: int) -> np.ndarray:
        """float32 [n] at 16 kHz."""
        return audio.decode_flac(self.flac(row))
