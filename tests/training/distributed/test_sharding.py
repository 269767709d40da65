"""Weights sharded over two processes, with the files of recipes/accelerate, compared with one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import Qwen3ASRForConditionalGeneration

from caspi import commands, recipe
from caspi.errors import UsageError
from caspi.training.checkpoint import files as checkpoints
from caspi.training.distributed.deepspeed import deepspeed
from tests.support import accelerate_environment, command, final_weights, kill_a_rank, metrics, run_recipe

"""Weights sharded over two processes, with the files of recipes/accelerate, compared with one process."""
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(torch.cuda.device_count() == 1, reason="two processes need two GPUs, or none"),
]
OVERRIDES = (
    "train.stages.0.epochs=0.67",
    "train.stages.1.epochs=0.67",
    "train.stages.1.ema=0.5",
    "train.precision=fp32",
)
KINDS = ("fsdp2", "zero3")


def overrides(kind: str) -> tuple[str, ...]:
    """With NorMuon for FSDP2, which can gather whole matrices."""
    return (*OVERRIDES, f"train.stages.1.optimizer={'normuon' if kind == 'fsdp2' else 'adamw'}")


def run(kind: str, folder: Path, made: recipe.Recipe) -> subprocess.CompletedProcess[str]:
    environment = os.environ | accelerate_environment(kind)
    return subprocess.run(command(folder, made), capture_output=True, text=True, check=False, env=environment)


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """How weights are sharded."""
    return str(request.param)


@pytest.fixture(scope="module")
def sharded(kind: str, small_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in two processes, with micro-batches so small that ranks differ in their number. Under ZeRO one process was
    killed in the middle, and the run was resumed."""
    folder = tmp_path_factory.mktemp(kind)
    made = run_recipe(folder, small_corpus, *overrides(kind), "train.max_batch_seconds=5")
    if kind == "zero3":
        kill_a_rank(command(folder, made), os.environ | accelerate_environment(kind), folder / "train")
    done = run(kind, folder, made)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / "train"


@pytest.fixture(scope="module")
def whole(kind: str, small_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run in one process."""
    folder = tmp_path_factory.mktemp("whole")
    commands.train.run(run_recipe(folder, small_corpus, *overrides(kind)))
    return folder / "train"


def test_sharded_training_equals_training_in_one_process(sharded: Path, whole: Path) -> None:
    assert len(metrics(whole, "loss")) == 8
    for key in ("loss", "grad_norm", "eval_loss"):
        assert np.allclose(metrics(sharded, key), metrics(whole, key), rtol=1e-4), key
    one, other = final_weights(whole), final_weights(sharded)
    assert one.keys() == other.keys()
    assert all(torch.allclose(one[name], other[name], atol=1e-4) for name in one)


def test_a_sharded_checkpoint_loads_with_plain_transformers(kind: str, sharded: Path) -> None:
    folder = checkpoints.complete_checkpoints(sharded / "2-all")[-1]
    state = torch.load(folder / {"fsdp2": "optimizer.bin", "zero3": "optimizer.pt"}[kind])
    assert {"fsdp2": "param_groups", "zero3": "moments"}[kind] in state, "the run was not sharded"
    model = Qwen3ASRForConditionalGeneration.from_pretrained(folder)
    stored = load_file(folder / "model.safetensors")
    assert all(torch.equal(parameter, stored[name]) for name, parameter in model.named_parameters())


def test_a_run_with_a_killed_rank_resumes_bit_identically(
    kind: str, sharded: Path, small_corpus: Path, tmp_path: Path
) -> None:
    if kind == "zero3":
        pytest.skip("its run was already killed and resumed, and is compared with one process")
    made = run_recipe(tmp_path, small_corpus, *overrides(kind), "train.max_batch_seconds=5")
    kill_a_rank(command(tmp_path, made), os.environ | accelerate_environment(kind), tmp_path / "train")
    done = run(kind, tmp_path, made)
    assert done.returncode == 0, done.stderr[-3000:]
    undisturbed, resumed = final_weights(sharded), final_weights(tmp_path / "train")
    assert all(torch.equal(undisturbed[name], resumed[name]) for name in undisturbed)


def test_resuming_with_another_sharding_is_refused(sharded: Path, small_corpus: Path) -> None:
    """Otherwise its optimizer would silently start from zero."""
    with pytest.raises(UsageError, match=r"holds another run .*sharding: none, was"):
        commands.train.run(run_recipe(sharded.parent, small_corpus, *OVERRIDES, "train.max_batch_seconds=5"))


@pytest.mark.parametrize("kind", KINDS)
def test_adapters_on_sharded_weights_are_refused(
    small_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    for name, value in accelerate_environment(kind).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match="stage letters: adapters cannot be trained on sharded weights"):
        commands.train.run(run_recipe(tmp_path, small_corpus, "train.stages.0.groups.projector={lr: 1e-3, lora: {}}"))


def test_out_of_memory_ends_a_sharded_run_and_lowers_its_budget(small_corpus: Path, tmp_path: Path) -> None:
    """Ranks with sharded weights cannot repeat a step alone: the same command resumes with smaller micro-batches."""
    made = run_recipe(tmp_path, small_corpus, *OVERRIDES)
    *launch, _, _, _, path = command(tmp_path, made)
    failed = subprocess.run(
        [*launch, "-m", "tests.training.distributed.trouble", path, str(tmp_path / "marker"), "memory"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | accelerate_environment("fsdp2"),
    )
    assert failed.returncode != 0
    assert "step 2: out of memory. Micro-batches will hold" in failed.stderr
    lesson = json.loads((tmp_path / "train" / "1-letters" / "budget-1.json").read_text())
    assert 0 < lesson["seconds"] < made.require_train().max_batch_seconds / 2
    done = run("fsdp2", tmp_path, made)
    assert done.returncode == 0, done.stderr[-3000:]
    commands.train.run(run_recipe(tmp_path / "whole", small_corpus, *OVERRIDES))
    assert np.allclose(metrics(tmp_path / "train", "loss"), metrics(tmp_path / "whole" / "train", "loss"), rtol=1e-4)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, "does not support ZeRO stage None"),
        ({"ACCELERATE_USE_FSDP": "true"}, "set fsdp_version: 2"),
        ({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}, "sharding needs several processes"),
    ],
)
def test_unsupported_sharding_is_an_error(
    small_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], message: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=message):
        commands.train.run(run_recipe(tmp_path, small_corpus))


def test_all_processes_with_sharded_weights_skip_a_step() -> None:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = os.environ | accelerate_environment("zero3")
    done = subprocess.run(
        [*launch, "-m", "tests.training.distributed.step_left_out"],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_a_missing_deepspeed_is_reported_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "deepspeed", None)
    with pytest.raises(UsageError, match=r"ZeRO needs DeepSpeed .*: pip install 'deepspeed"):
        deepspeed()
