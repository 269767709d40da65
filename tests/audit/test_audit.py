from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caspi import recipe
from caspi.audit.audit import CAUTION, PROCEED, STOP, AuditConfig, audit, wilson
from caspi.corpus import prepare as preparing
from caspi.corpus.store import Corpus
from caspi.model.loading import Loaded, ModelConfig, load
from tests.conftest import RECIPES


@pytest.fixture(scope="module")
def spanish(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Speech of a language the base knows, so that it can judge."""
    pytest.importorskip("wordfreq")
    raise NotImplementedError


def test_decisions(monkeypatch: pytest.MonkeyPatch) -> None:
    from caspi.audit import audit as module

    config = AuditConfig()
    assert module._decide([False] * 99 + [True], 0.99, config)[0] == PROCEED
    assert module._decide([False] * 80 + [True] * 20, 0.99, config)[0] == CAUTION
    assert module._decide([False] * 40 + [True] * 60, 0.99, config)[0] == STOP
    decision, reason = module._decide([False] * 100, 0.6, config)
    assert decision == CAUTION
    assert "cannot judge" in reason


@given(st.integers(0, 200), st.integers(1, 200))
def test_wilson_interval_holds_the_share(count: int, total: int) -> None:
    count = min(count, total)
    low, high = wilson(count, total)
    assert 0 <= low <= count / total + 1e-12
    assert count / total - 1e-12 <= high <= 1
