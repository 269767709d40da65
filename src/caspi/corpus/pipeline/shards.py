"""Parts: intermediate files that workers write while a corpus is made, so that a killed run can resume.

A part holds the outcomes of a few consecutive recordings, kept and rejected. Its name says which. It is created by one
rename, so it is either complete or missing. Parts are deleted when the corpus is finished.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from caspi.atomic_output import sync_to_disk
from caspi.corpus.pipeline.process import Accepted, Rejected, Rules, process
from caspi.corpus.store import ROWS_PER_BATCH, SCHEMA, row
from caspi.corpus.utterance import Recording

SHARD_SCHEMA = pa.schema(
    [
        *SCHEMA,
        ("shifted", pa.binary()),
        ("split", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
    ]
)
_UTTERANCES_A_BLOCK = 64  # about the loss per worker if the run is killed


@dataclass(frozen=True, slots=True)
class Block:
    """Consecutive recordings of a source; `first` is the number of the first."""

    first: int
    recordings: list[Recording] = field(repr=False)

    @property
    def name(self) -> str:
        return f"{self.first:09d}-{len(self.recordings):03d}.arrow"


@dataclass(frozen=True, slots=True)
class MadeShard:
    """What a worker reports about a part it wrote."""

    recordings: int
    seconds: float


def blocks(recordings: Iterable[Recording], first: int) -> Iterator[Block]:
    """Divides a source into blocks of about equal work. The cuts depend only on where the first block starts, which is
    always a cut of an earlier run."""
    held: list[Recording] = []
    weight = 0
    for recording in recordings:
        held.append(recording)
        weight += max(1, len(recording.segments))
        if weight >= _UTTERANCES_A_BLOCK:
            yield Block(first, held)
            first, held, weight = first + len(held), [], 0
    if held:
        yield Block(first, held)


def make_shard(block: Block, folder: Path, rules: Rules) -> MadeShard:
    """Processes a block and writes its part to `folder`."""
    partial = folder / f"{block.name}.{os.getpid()}.partial"
    seconds = 0.0
    try:
        with pa.OSFile(str(partial), "wb") as file, pa.ipc.new_file(file, SHARD_SCHEMA) as writer:
            rows: list[dict[str, Any]] = []
            for recording in block.recordings:
                for outcome in process(recording, rules):
                    seconds += outcome.utterance.seconds if isinstance(outcome, Accepted) else 0.0
                    rows.append(_row(outcome))
                    if len(rows) >= ROWS_PER_BATCH:
                        writer.write_batch(pa.RecordBatch.from_pylist(rows, schema=SHARD_SCHEMA))
                        rows = []
            if rows:
                writer.write_batch(pa.RecordBatch.from_pylist(rows, schema=SHARD_SCHEMA))
        _publish(partial, folder / block.name)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    return MadeShard(len(block.recordings), seconds)


def make_crashed(block: Block, folder: Path) -> MadeShard:
    """The part of a single recording that crashed its worker."""
    assert len(block.recordings) == 1
    recording = block.recordings[0]
    outcome = Rejected(recording.id, recording.source, "decoder_crashed", "the process that decoded it died")
    partial = folder / f"{block.name}.{os.getpid()}.partial"
    with pa.OSFile(str(partial), "wb") as file, pa.ipc.new_file(file, SHARD_SCHEMA) as writer:
        writer.write_batch(pa.RecordBatch.from_pylist([_row(outcome)], schema=SHARD_SCHEMA))
    _publish(partial, folder / block.name)
    return MadeShard(1, 0.0)


def _publish(partial: Path, final: Path) -> None:
    sync_to_disk(partial)  # otherwise a power failure could leave an empty part under the final name
    partial.rename(final)


def _row(outcome: Accepted | Rejected) -> dict[str, Any]:
    if isinstance(outcome, Accepted):
        columns = row(outcome.utterance, outcome.flac, outcome.exact, outcome.words.tobytes())
        return {
            **columns,
            "shifted": outcome.shifted.tobytes(),
            "split": outcome.split,
            "reason": None,
            "detail": " ".join(outcome.notes),
        }
    return {"id": outcome.id, "source": outcome.source, "reason": outcome.reason, "detail": outcome.detail}


def made_shards(folder: Path) -> tuple[list[Path], int]:
    """Consecutive parts from the first recording on, and how many recordings they hold."""
    found, following = [], 0
    for path in sorted(folder.glob("*.arrow")):
        first, _, count = path.stem.partition("-")
        if int(first) == following:
            found.append(path)
            following += int(count)
    return found, following


def read_shard(path: Path) -> Iterator[pa.RecordBatch]:
    """Record batches of a part."""
    with pa.memory_map(str(path)) as file:
        reader = pa.ipc.open_file(file)
        for number in range(reader.num_record_batches):
            yield reader.get_batch(number)
