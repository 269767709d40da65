from __future__ import annotations

import pytest

from caspi.model.aligner import LoadedAligner, load_aligner
from caspi.model.config import ModelConfig


@pytest.fixture(scope="session")
def aligner() -> LoadedAligner:
    """tiny with an untrained classifier of 500 times. Tests must not change it."""
    return load_aligner(ModelConfig(task="align", aligner="slots", time_bins=500))
