"""Muon and NorMuon: which parameters they update, how far, and that AdamW updates all others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from caspi import commands
from caspi.errors import UsageError
from caspi.model.groups import select, set_trainable
from caspi.model.loading import LoadedModel
from caspi.training.checkpoint import files as checkpoints
from caspi.training.config import StageConfig
from caspi.training.optim import build
from caspi.training.optim.muon import Muon, orthogonal
from tests.support import accelerate_environment, metrics, needs, run_recipe
from tests.training.test_adapters import learn

EVERYTHING = {"audio_front": 1e-3, "audio_layers": 1e-3, "projector": 1e-3, "decoder_layers": 1e-3, "embeddings": 1e-3}


@pytest.mark.parametrize("shape", [(3, 20, 20), (2, 24, 7), (1, 5, 40)])
def test_orthogonal_gives_the_nearest_orthogonal_matrix(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    matrices = torch.randn(shape) * torch.tensor([1e-3, 1.0, 1e3])[: shape[0], None, None]
    found = orthogonal(matrices)
    u, _, v = torch.linalg.svd(matrices, full_matrices=False)
    sizes = torch.linalg.svdvals(found)
    assert ((sizes > 0.6) & (sizes < 1.3)).all()
    cosine = (found * (u @ v)).sum(dim=(1, 2)) / found.norm(dim=(1, 2)) / (u @ v).norm(dim=(1, 2))
    assert (cosine > 0.97).all()


def wander(optimizer: torch.optim.Optimizer, parameters: list[torch.Tensor], steps: int, seed: int = 0) -> None:
    draw = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        for parameter in parameters:
            parameter.grad = torch.randn(parameter.shape, generator=draw)
        optimizer.step()


def test_muon_equals_torchs_muon() -> None:
    """torch's computes in bf16 and without batches."""
    torch.manual_seed(0)
    start = [torch.randn(16, 48), torch.randn(16, 48), torch.randn(40, 24)]
    parameters, reference_parameters = [[nn.Parameter(value.clone()) for value in start] for _ in range(2)]
    wander(Muon([{"params": parameters, "lr": 0.02, "weight_decay": 0.1, "momentum": 0.9}]), parameters, 5)
    reference = torch.optim.Muon(
        reference_parameters, lr=0.02, weight_decay=0.1, momentum=0.9, adjust_lr_fn="match_rms_adamw"
    )
    wander(reference, reference_parameters, 5)
    for value, one, other in zip(start, parameters, reference_parameters, strict=True):
        assert ((one - other).norm() / (other - value).norm()).item() < 0.02


@pytest.mark.parametrize("more", [{}, {"rows": 0.95}])
def test_a_step_is_as_long_as_one_of_adamw(more: dict[str, float]) -> None:
    torch.manual_seed(0)
    for shape in ((32, 32), (96, 32), (32, 200)):
        matrix = nn.Parameter(torch.zeros(shape))
        wander(Muon([{"params": [matrix], "lr": 1e-3, "weight_decay": 0.0, "momentum": 0.0, **more}]), [matrix], 1)
        assert matrix.square().mean().sqrt().item() == pytest.approx(0.2e-3, rel=0.25)


@pytest.mark.parametrize("more", [{}, {"rows": 0.95}])
def test_a_zero_gradient_changes_nothing(more: dict[str, float]) -> None:
    """FSDP2 takes a step with zero gradients before it loads a state."""
    matrix = nn.Parameter(torch.eye(4))
    matrix.grad = torch.zeros(4, 4)
    Muon([{"params": [matrix], "lr": 1e-3, "weight_decay": 0.0, "momentum": 0.9, **more}]).step()
    assert torch.equal(matrix, torch.eye(4))


def test_normuon_moves_every_row_equally_far() -> None:
    """A row with small updates is scaled up."""
    torch.manual_seed(0)
    moved = {}
    for name, more in (("muon", {}), ("normuon", {"rows": 0.5})):
        matrix = nn.Parameter(torch.zeros(64, 8))
        optimizer = Muon([{"params": [matrix], "lr": 1.0, "weight_decay": 0.0, "momentum": 0.0, **more}])
        for _ in range(10):
            matrix.grad = torch.randn(64, 8) * torch.linspace(0.05, 1, 64)[:, None]
            before = matrix.detach().clone()
            optimizer.step()
        moved[name] = (matrix.detach() - before).norm(dim=1)
    assert moved["normuon"].std() / moved["normuon"].mean() < 0.6 * moved["muon"].std() / moved["muon"].mean()


@pytest.mark.parametrize("kind", ["muon", "normuon"])
def test_muon_updates_only_matrices_inside_blocks(fresh_tiny: LoadedModel, kind: str) -> None:
    stage = StageConfig(name="s", groups=EVERYTHING, optimizer=kind)
    groups = select(fresh_tiny.model, learn(**EVERYTHING))
    set_trainable(fresh_tiny.model, groups, torch.float32)
    found = build.build(fresh_tiny.model, groups, stage)
    names = {id(parameter): name for name, parameter in fresh_tiny.model.named_parameters()}
    muons = {names[id(p)] for group in found.param_groups if "momentum" in group for p in group["params"]}
    stacks = [name for name in names.values() if ".layers." in name]
    assert muons == {name for name in stacks if name.endswith("weight") and "norm" not in name}
    assert len(names) == sum(len(group["params"]) for group in found.param_groups)
    decayed = {names[id(p)] for group in found.param_groups if group["weight_decay"] for p in group["params"]}
    assert not any("norm" in name or name.endswith("bias") for name in decayed)


def test_adapters_are_updated_by_adamw(fresh_tiny: LoadedModel) -> None:
    groups_config = learn(decoder_layers={"lr": 1e-3, "lora": {"rank": 2}})
    groups = select(fresh_tiny.model, groups_config)
    found = build.build(fresh_tiny.model, groups, StageConfig(name="s", groups=groups_config, optimizer="muon"))
    assert not any("momentum" in group for group in found.param_groups)


def test_the_other_parameters_are_updated_by_adamw() -> None:
    torch.manual_seed(0)
    start = torch.randn(9)
    parameters, reference_parameters, matrix = (
        nn.Parameter(start.clone()),
        nn.Parameter(start.clone()),
        nn.Parameter(torch.eye(4)),
    )
    groups = [{"params": [matrix], "momentum": 0.9}, {"params": [parameters]}]
    wander(Muon(groups, lr=0.1, betas=(0.8, 0.9)), [parameters, matrix], 4)
    reference = torch.optim.AdamW([reference_parameters], lr=0.1, betas=(0.8, 0.9), fused=True)
    draw = torch.Generator().manual_seed(0)
    for _ in range(4):
        reference_parameters.grad = torch.randn(reference_parameters.shape, generator=draw)
        torch.randn(matrix.shape, generator=draw)
        reference.step()
    assert torch.equal(parameters, reference_parameters)


@pytest.mark.parametrize("more", [{}, {"rows": 0.95}])
def test_its_state_survives_a_checkpoint(tmp_path: Path, more: dict[str, float]) -> None:
    torch.manual_seed(0)
    start = [torch.randn(6, 4), torch.randn(6, 4), torch.randn(5)]

    def made(values: list[torch.Tensor]) -> tuple[list[nn.Parameter], Muon]:
        p = [nn.Parameter(value.clone()) for value in values]
        return p, Muon([{"params": p[:2], "momentum": 0.9, **more}, {"params": p[2:]}], lr=0.01)

    undisturbed, optimizer = made(start)
    wander(optimizer, undisturbed, 3)
    checkpoints.save_optimizer(tmp_path, optimizer.state_dict())
    resumed, other = made([p.detach() for p in undisturbed])
    other.load_state_dict(checkpoints.optimizer_state(tmp_path))
    for parameters, one in ((undisturbed, optimizer), (resumed, other)):
        wander(one, parameters, 3, seed=1)
    assert all(torch.equal(one, two) for one, two in zip(undisturbed, resumed, strict=True))


@needs("deepspeed")
def test_zero_with_normuon_is_refused(small_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in accelerate_environment("zero3").items():
        monkeypatch.setenv(name, value)
    made = run_recipe(tmp_path, small_corpus, "train.stages.1.optimizer=normuon")
    with pytest.raises(UsageError, match="stage all: ZeRO cuts matrices into pieces that normuon cannot update"):
        commands.train.run(made)


def test_a_stage_learns_with_muon(small_corpus: Path, tmp_path: Path) -> None:
    made = run_recipe(tmp_path, small_corpus, "train.stages.1.optimizer=muon", "train.evaluate.every=100")
    commands.train.run(made)
    losses = metrics(tmp_path / "train", "loss")
    assert np.mean(losses[-3:]) < 0.7 * np.mean(losses[3:6])
