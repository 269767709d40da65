"""Stages that train different parts, compiled, one after another in one process."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from caspi import commands
from tests.support import metrics, run_recipe

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")]

_STAGES = (
    "{name: ends, epochs: 0.5, groups: {projector: 1e-4, embeddings: 1e-4}}",
    "{name: top, epochs: 0.5, groups: {audio_layers: {top: 1, lr: 1e-4}, decoder_layers: {top: 2, lr: 1e-4}}}",
    "{name: low-rank, epochs: 0.5, groups: {decoder_layers: {lr: 1e-4, lora: {rank: 4}}}}",
    "{name: all, epochs: 1, groups: {audio_front: 1e-4, audio_layers: 1e-4, projector: 1e-4, decoder_layers: 1e-4}}",
)


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_stages_compiled_lose_what_plain_ones_lose(small_corpus: Path, tmp_path: Path, precision: str) -> None:
    common = (f"train.stages=[{', '.join(_STAGES)}]", f"train.precision={precision}", "train.effective_batch=16")
    for compiled in ("true", "false"):
        commands.train.run(run_recipe(tmp_path / compiled, small_corpus, *common, f"train.compile={compiled}"))
    fast, plain = (metrics(tmp_path / compiled / "train", "loss") for compiled in ("true", "false"))
    assert len(plain) >= len(_STAGES)
    assert np.allclose(fast, plain, rtol=0.03 if precision == "bf16" else 2e-3)
