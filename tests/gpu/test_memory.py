"""A device that holds less than a micro-batch: a real allocator that says no."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import pytest
import torch

from caspi import commands
from tests.support import lines, metrics, run_recipe

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")]


def test_a_capped_allocator_costs_time_and_nothing_else(small_corpus: Path, tmp_path: Path) -> None:
    stage = (
        "{name: all, epochs: 3, groups: {audio_front: 5e-4, audio_layers: 5e-4, projector: 5e-4, "
        "decoder_layers: 5e-4, embeddings: 5e-4}}"
    )
    overrides = (
        f"train.stages=[{stage}]", "train.effective_batch=48", "train.precision=fp32", "train.evaluate.every=100",
        "train.evaluate.utterances=2",
    )  # fmt: skip
    gc.collect()  # of other tests, whose memory would count as this one's
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    commands.train.run(run_recipe(tmp_path / "free", small_corpus, *overrides))
    peak = (
        max(metrics(tmp_path / "free" / "train", "peak_gib")) * 2**30
    )  # of the steps; an evaluation takes what is free
    gc.collect()
    torch.cuda.empty_cache()
    held = torch.cuda.memory_reserved()  # the limit counts it: graphs of other tests keep memory that nothing else uses
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((held + 0.6 * (peak - before)) / total)
    try:
        commands.train.run(run_recipe(tmp_path / "capped", small_corpus, *overrides))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert lines(tmp_path / "capped" / "train", "out_of_memory")
    free, capped = (metrics(tmp_path / name / "train", "loss") for name in ("free", "capped"))
    assert np.allclose(free, capped, rtol=1e-3)
