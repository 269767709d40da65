"""Spoken sentences as a corpus, for the tests of audit, repair and label."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pyarrow as pa

from caspi import audio
from caspi.audit.audit import AuditConfig
from caspi.audit.sampling import Sampling
from caspi.corpus.store import SCHEMA, ShardWriter, row
from caspi.corpus.utterance import Split, Utterance

SIZE = 64  # two blocks
ALL = AuditConfig(sampling=Sampling(share=1.0))
Spoken: TypeAlias = tuple[str, np.ndarray, str]
"""Text, samples float32 [n], and voice or recording."""


def write_corpus(folder: Path, spoken: Sequence[Spoken], split: Split = "train", language: str = "Hebrew") -> Path:
    """A corpus with one split; its utterances are u0, u1, ... An existing one gets another split."""
    rows = []
    previous: Spoken = ("", np.zeros(0), "")
    for number, (text, samples, group) in enumerate(spoken):
        told = previous[0] if previous[2] == group else ""
        utterance = Utterance(f"u{number}", text, len(samples) / 16_000, "spoken", group, language, previous=told)
        rows.append({**row(utterance, audio.encode_flac(samples)), "position": number})
        previous = spoken[number]
    folder.mkdir(parents=True, exist_ok=True)
    writer = ShardWriter(folder, split)
    writer.write(pa.RecordBatch.from_pylist(rows, schema=SCHEMA))
    writer.close()
    (folder / "report.json").write_text('{"stage": "prepare"}')
    return folder
