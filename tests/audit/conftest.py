"""Sentences that were spoken once for all tests of a module."""

from __future__ import annotations

import numpy as np
import pytest

from caspi.corpus.sources.synthetic import SyntheticSource
from tests.audit.spoken import SIZE, Spoken


@pytest.fixture(scope="session")
def sentences() -> list[Spoken]:
    """Hebrew sentences."""
    source = SyntheticSource(kind="synthetic", utterances=SIZE, seed=5, only=("m3", "f3", "Andrea"), rate=(140, 190))
    found = []
    for recording in source.recordings("Hebrew"):
        stream, _ = recording.audio.open()
        found.append((recording.text, np.concatenate(list(stream.blocks)), recording.group))
    return found
