"""8-bit AdamW: about the same updates as AdamW, a quarter of its state, identical after a checkpoint."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from caspi import commands
from caspi.errors import MissingDependency, UsageError
from caspi.model.groups import select, set_trainable
from caspi.model.loading import LoadedModel
from caspi.training.checkpoint import files as checkpoints
from caspi.training.config import StageConfig
from caspi.training.optim import build
from tests.support import accelerate_environment, command, final_weights, metrics, needs, run_recipe
from tests.training.optim.test_muon import EVERYTHING, wander


@pytest.fixture(scope="module")
def torchao() -> Iterator[None]:
    """Installed separately (Makefile). Without compilation, which it would do for every shape."""
    with pytest.MonkeyPatch.context() as patch:
        if not (Path(sys.prefix) / "torchao").is_dir():
            pytest.skip("torchao is not installed beside the environment (make .venv/.dev)")
        patch.syspath_prepend(str(Path(sys.prefix) / "torchao"))
        patch.setattr(torch, "compile", lambda function, **_: function)
        yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchao"]:
        del sys.modules[name]


def built(loaded: LoadedModel, name: str) -> torch.optim.Optimizer:
    stage = StageConfig.model_validate({"name": "s", "groups": EVERYTHING, "optimizer": name})
    groups = select(loaded.model, stage.groups)
    set_trainable(loaded.model, groups, torch.float32)
    return build.build(loaded.model, groups, stage)


@pytest.mark.usefixtures("torchao")
def test_it_updates_like_adamw_with_a_quarter_of_the_state(fresh_tiny: LoadedModel) -> None:
    start = {name: p.detach().clone() for name, p in fresh_tiny.model.named_parameters()}
    moved, sizes = [], []
    for name in ("adamw", "adamw8bit"):
        fresh_tiny.model.load_state_dict(start, strict=False)
        optimizer = built(fresh_tiny, name)
        trained = [p for group in optimizer.param_groups for p in group["params"]]
        wander(optimizer, trained, 4)
        moved.append(torch.cat([(p.detach() - start[n]).flatten() for n, p in fresh_tiny.model.named_parameters()]))
        state = optimizer.state_dict()["state"].values()
        sizes.append(sum(v.numel() * v.element_size() for of in state for v in of.values()))
    exact, eight_bit = moved
    assert torch.nn.functional.cosine_similarity(exact, eight_bit, dim=0) > 0.98
    assert sizes[1] < 0.3 * sizes[0]  # the rest: tables of codes, and small tensors in fp32


@pytest.mark.usefixtures("torchao")
def test_resuming_from_a_checkpoint_is_bit_identical(fresh_tiny: LoadedModel, tmp_path: Path) -> None:
    optimizer = built(fresh_tiny, "adamw8bit")
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
    trained = [p for group in optimizer.param_groups for p in group["params"]]
    wander(optimizer, trained, 3)
    schedule.step()
    checkpoints.save_optimizer(tmp_path, optimizer.state_dict())
    middle = [p.detach().clone() for p in trained]
    wander(optimizer, trained, 3, seed=1)
    expected = [p.detach().clone() for p in trained]
    again = built(fresh_tiny, "adamw8bit")
    again.load_state_dict(checkpoints.optimizer_state(tmp_path))
    for p, value in zip(trained, middle, strict=True):
        p.data.copy_(value)
    assert build.learning_rates(again) == pytest.approx(build.learning_rates(optimizer))
    wander(again, trained, 3, seed=1)
    assert all(torch.equal(p, value) for p, value in zip(trained, expected, strict=True))


def test_a_missing_torchao_is_reported_before_the_first_stage(
    small_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    made = run_recipe(tmp_path, small_corpus, "train.stages.1.optimizer=adamw8bit")
    with pytest.raises(MissingDependency, match=r"pip install 'torchao"):
        commands.train.run(made)


@needs("deepspeed")
@pytest.mark.usefixtures("torchao")
def test_zero_with_8bit_adamw_is_refused(small_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in accelerate_environment("zero3").items():
        monkeypatch.setenv(name, value)
    made = run_recipe(tmp_path, small_corpus, "train.stages.1.optimizer=adamw8bit")
    with pytest.raises(UsageError, match="stage all: ZeRO cuts matrices into pieces that adamw8bit cannot update"):
        commands.train.run(made)


@pytest.mark.slow
@pytest.mark.usefixtures("torchao")
def test_sharded_over_two_processes_it_steps_as_in_one(small_corpus: Path, tmp_path: Path) -> None:
    """A run with FSDP2, interrupted in the middle and resumed, compared with a run in one process."""
    stage = (
        "{name: all, epochs: 1, optimizer: adamw8bit, groups: {projector: 1e-3, embeddings: 1e-3, audio_layers: 1e-3}}"
    )
    overrides = (f"train.stages=[{stage}]", "train.evaluate.utterances=4", "train.precision=fp32")
    made = run_recipe(tmp_path / "spread", small_corpus, *overrides)
    *launch, _, _, _, path = command(tmp_path / "spread", made)
    environment = os.environ | accelerate_environment("fsdp2") | {"PYTHONFAULTHANDLER": "1"}
    done = subprocess.run(
        [*launch, "-m", "tests.training.optim.eight_bits", path, "3"],
        capture_output=True, text=True, check=False, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stderr[:4000]} ... {done.stderr[-3000:]}"
    [*_, written] = checkpoints.complete_checkpoints(tmp_path / "spread" / "train" / "1-all")
    assert {"0.exp_avg", "0.exp_avg_sq", "0.step"} < set(load_file(written / checkpoints.OPTIMIZER))
    resumed, undisturbed = (final_weights(tmp_path / "spread" / name) for name in ("train", "undisturbed"))
    assert all(torch.equal(undisturbed[name], resumed[name]) for name in undisturbed)
    commands.train.run(run_recipe(tmp_path / "whole", small_corpus, *overrides))
    one, other = (metrics(tmp_path / name / "train", "loss") for name in ("whole", "spread"))
    assert len(one) == len(other)
    assert np.allclose(one, other, rtol=2e-3)
