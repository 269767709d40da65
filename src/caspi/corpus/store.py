"""The corpus on disk: Arrow files of FLAC and text, read by row. Text and numbers are memory-mapped; audio is read,
because a page of a mapped file that cannot be read kills the process instead of raising an error.

`train-00000.arrow`, `validation-00000.arrow`, ...: Arrow IPC files, whose footer makes opening independent of
size. Plain `datasets` reads them: `load_dataset("arrow", data_files={"train": "CORPUS/train-*.arrow"})`.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from caspi import audio
from caspi.atomic_output import REPORT
from caspi.corpus.signals import SIGNALS, Signals
from caspi.corpus.utterance import Split, Utterance, Word
from caspi.errors import UsageError

_TIMES = pa.list_(pa.struct([("text", pa.string()), ("start", pa.float64()), ("end", pa.float64())]))
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
        ("previous", pa.string()),
        ("words", _TIMES),
        ("segments", _TIMES),
        ("synthetic", pa.bool_()),
        ("quality", pa.float64()),
        ("sample_rate", pa.int32()),
        ("channels", pa.int32()),
        ("dead_channel", pa.bool_()),
        *((name, pa.float32()) for name in SIGNALS),
        ("repeat", pa.int32()),
        ("position", pa.int64()),
        ("audio_hash", pa.binary(16)),
        ("fingerprint", pa.binary()),
        ("labelled", pa.bool_()),
    ]
)
_LATER = ("labelled",)  # columns that corpora of version 0.2 and before do not have: False
METADATA = [name for name in SCHEMA.names if name != "audio"]
_FIELDS = [name for name in METADATA if name in Utterance.__dataclass_fields__]
ROWS_PER_BATCH = 64
BYTES_PER_SHARD = 1 << 30


def row(utterance: Utterance, flac: bytes, audio_hash: bytes = b"\0" * 16, fingerprint: bytes = b"") -> dict[str, Any]:
    """An utterance as a row of `SCHEMA`."""
    signals = utterance.signals
    return {
        **{name: getattr(utterance, name) for name in _FIELDS},
        **{name: getattr(signals, name) if signals else None for name in SIGNALS},
        "audio": {"bytes": flac, "path": _file_name(utterance.id)},
        "words": [word._asdict() for word in utterance.words],
        "segments": [word._asdict() for word in utterance.segments],
        "audio_hash": audio_hash,
        "fingerprint": fingerprint,
        "position": 0,
    }


def _file_name(identifier: str) -> str:
    """A file name without folders, so that unpacking the audio cannot write outside its folder."""
    return re.sub(r"[^\w.-]+", "_", identifier).lstrip(".") + ".flac"


class ShardWriter:
    """Writes record batches of `SCHEMA` to numbered Arrow files of one split, each at most about 1 GiB.

    first: number of the first shard. fingerprint: hash of ids, texts and audio, in order.
    """

    def __init__(self, folder: Path, split: Split, first: int = 0) -> None:
        self._folder, self._split, self._next = folder, split, first
        self._writer: pa.RecordBatchFileWriter | None = None
        self._bytes = 0
        self._hash = hashlib.sha256()
        self.shards: list[str] = []
        self.count = 0
        self.seconds = 0.0

    @property
    def fingerprint(self) -> str:
        return self._hash.hexdigest()

    def write(self, batch: pa.RecordBatch) -> None:
        """Appends the rows of a batch."""
        columns = (batch.column(name).to_pylist() for name in ("id", "text", "audio_hash"))
        for identifier, text, audio_hash in zip(*columns, strict=True):
            self._hash.update(f"{identifier}\0{text}\0".encode() + audio_hash)
        if self._writer is None:
            name = f"{self._split}-{self._next:05d}.arrow"
            self._writer = pa.ipc.new_file(str(self._folder / name), SCHEMA)
            self.shards.append(name)
            self._next += 1
        self._writer.write_batch(batch)
        self.count += batch.num_rows
        self.seconds += pc.sum(batch.column("seconds")).as_py() or 0.0
        self._bytes += batch.nbytes
        if self._bytes >= BYTES_PER_SHARD:
            self.close()

    def close(self) -> None:
        """Writes the footer, without which a shard cannot be read."""
        if self._writer is not None:
            self._writer.close()
            self._writer, self._bytes = None, 0


class Corpus:
    """One split, random access by row. Metadata columns are read without touching audio."""

    def __init__(self, folder: Path, split: Split, paths: Sequence[Path]) -> None:
        self.folder, self.split, self._paths = folder, split, paths
        maps = [pa.memory_map(str(path)) for path in paths]
        # Where each file begins in memory: found here because a map has one position, which threads would share.
        self._first_bytes = [mapped.read_buffer(1).address for mapped in maps]
        self._shards = shards = [pa.ipc.open_file(mapped) for mapped in maps]
        self._locations: list[tuple[int, int]] = [
            (number, batch) for number, shard in enumerate(shards) for batch in range(shard.num_record_batches)
        ]
        self._ends: np.ndarray | None = None
        self._audio: np.ndarray | None = None

    @classmethod
    def open(cls, folder: Path, split: Split) -> Self:
        """Raises UsageError if the folder is not a corpus or the split is empty."""
        folder = Path(folder)
        if not folder.exists():
            raise UsageError(f"{folder}: no such file or folder; caspi prepare RECIPE makes a corpus")
        if not (folder / REPORT).is_file():
            raise UsageError(f"{folder} is not a corpus (it has no {REPORT}): make one with caspi prepare RECIPE")
        paths = sorted(folder.glob(f"{split}-*.arrow"))
        if not paths:
            raise UsageError(f"corpus {folder} has no utterances in its {split} split; see {folder / 'report.html'}")
        try:
            corpus = cls(folder, split, paths)
        except pa.ArrowInvalid as error:
            raise UsageError(f"corpus {folder}: a shard is damaged ({error}); run caspi prepare again") from error
        needed = set(SCHEMA.names) - set(_LATER)
        if any(not needed <= set(shard.schema.names) for shard in corpus._shards):
            raise UsageError(f"corpus {folder} was made by an older caspi: run caspi prepare again")
        return corpus

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
        return [value for _, batch in self.batches() for value in _column(batch, name)]

    def batches(self) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Record batches in row order, with the number of their first row."""
        first = 0
        for index in range(len(self._locations)):
            batch = self._batch(index)
            yield first, batch
            first += batch.num_rows

    def numbers(self, name: str) -> np.ndarray:
        """A numeric column of the whole split."""
        return np.concatenate([_numbers(self._batch(i).column(name)) for i in range(len(self._locations))])

    def _locate(self, row: int) -> tuple[pa.RecordBatch, int]:
        ends = self._batch_ends()
        if not 0 <= row < ends[-1]:
            raise IndexError(row)
        index = int(np.searchsorted(ends, row, side="right"))
        return self._batch(index), row - (int(ends[index - 1]) if index else 0)

    def utterance(self, row: int) -> Utterance:
        """The record of a row, without its audio."""
        batch, offset = self._locate(row)
        values = {name: batch.column(name)[offset].as_py() for name in _FIELDS if name in batch.schema.names}
        for name in ("words", "segments"):
            values[name] = tuple(Word(**word) for word in values[name])
        signals = {name: batch.column(name)[offset].as_py() for name in SIGNALS}
        known = all(value is not None for value in signals.values())
        return Utterance(**values, signals=Signals(**signals) if known else None)

    def flac(self, row: int) -> bytes:
        """The encoded audio of a row. Raises OSError if the disk does not return all of it."""
        if not 0 <= row < len(self):
            raise IndexError(row)
        self.find_audio()
        assert self._audio is not None
        shard, start, size = self._audio[row].tolist()
        handle = os.open(self._paths[shard], os.O_RDONLY)
        try:
            data = os.pread(handle, size, start)
        finally:
            os.close(handle)
        if len(data) < size:
            raise OSError(f"{self._paths[shard]} was cut short")
        return data

    def find_audio(self) -> None:
        """Stores the position of every row's audio (shard, first byte, bytes), so that reading it later needs no mapped
        memory."""
        if self._audio is not None:
            return
        places = []
        for index, (number, _) in enumerate(self._locations):
            column = self._batch(index).column("audio").field("bytes")
            _, offsets, data = column.buffers()
            ends = np.frombuffer(offsets, np.int32, len(column) + 1, 4 * column.offset).astype(np.int64)
            start = data.address - self._first_bytes[number]
            places.append(np.stack([np.full(len(column), number), start + ends[:-1], np.diff(ends)], axis=1))
        self._audio = np.concatenate(places)

    def samples(self, row: int) -> np.ndarray:
        """float32 [n] at 16 kHz."""
        return audio.decode_flac(self.flac(row))


def with_all_columns(batch: pa.RecordBatch) -> pa.RecordBatch:
    """A batch with the columns of `SCHEMA`, also if an earlier version wrote it."""
    known = set(batch.schema.names)
    columns = [batch.column(name) if name in known else pa.array(_column(batch, name)) for name in SCHEMA.names]
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


def _column(batch: pa.RecordBatch, name: str) -> list[Any]:
    if name in _LATER and name not in batch.schema.names:
        return [False] * batch.num_rows
    values: list[Any] = batch.column(name).to_pylist()
    return values


def _numbers(column: pa.Array) -> np.ndarray:
    """NaN for missing values. Arrow's own conversion imports pandas on first use, which takes half a second, and treats
    Ctrl-C in that time as a failed import."""
    if column.null_count:
        return np.asarray(column.to_numpy(zero_copy_only=False))
    return np.from_dlpack(column)
