"""LoRA and DoRA on named groups, averages of weights: contents of a checkpoint, and resuming after a kill."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import Qwen3ASRForConditionalGeneration

from caspi import commands
from caspi.errors import UsageError
from caspi.interrupts import Interrupted
from caspi.model import adapters
from caspi.model.activation_checkpointing import checkpoint_activations
from caspi.model.batch import Batch
from caspi.model.config import GroupTraining
from caspi.model.groups import describe, select, set_trainable
from caspi.model.loading import TINY, LoadedModel
from caspi.training.checkpoint import files as checkpoints
from caspi.training.objectives.cross_entropy import CrossEntropy
from tests.support import Forward, final_weights, gradients, items, metrics, run_recipe, spoil

LORA = "{rank: 4, alpha: 8, dropout: 0.1}"
STAGES = (
    "train.stages.0.epochs=0.67",
    f"train.stages.0.groups={{projector: 1e-3, audio_layers: {{lr: 1e-2, top: 2, lora: {LORA}}}, "
    f"decoder_layers: {{lr: 1e-2, lora: {LORA}}}}}",
    "train.stages.0.ema=0.8",
    "train.stages.1.epochs=0.67",
    "train.stages.1.ema=0.9",
    "train.activation_checkpointing_every=2",
    "train.max_batch_seconds=12",  # several micro-batches per step
)


def learn(**groups: object) -> dict:  # type: ignore[type-arg]
    return {name: GroupTraining.model_validate(config) for name, config in groups.items()}


@pytest.mark.parametrize("dora", [False, True])
def test_untrained_adapters_change_nothing(fresh_tiny: LoadedModel, dora: bool) -> None:
    before = {name: tensor.detach().clone() for name, tensor in fresh_tiny.model.named_parameters()}
    select(fresh_tiny.model, learn(decoder_layers={"lr": 1e-3, "lora": {"rank": 3, "dora": dora}}))
    after = adapters.merged(fresh_tiny.model)
    assert after.keys() == before.keys()
    assert all(torch.allclose(before[name].float(), after[name].float(), atol=1e-7) for name in before)


@pytest.mark.parametrize("dora", [False, True])
def test_merged_weights_compute_the_same_as_adapters(fresh_tiny: LoadedModel, tiny: LoadedModel, dora: bool) -> None:
    groups = select(
        fresh_tiny.model,
        learn(
            decoder_layers={"lr": 1e-3, "top": 2, "lora": {"rank": 3, "dora": dora}}, projector={"lr": 1, "lora": {}}
        ),
    )
    set_trainable(fresh_tiny.model, groups, torch.bfloat16)  # as on a GPU: merging must not round to it
    torch.manual_seed(0)
    for name, parameter in fresh_tiny.model.named_parameters():
        if adapters.is_adapter(name):
            parameter.data += torch.randn_like(parameter) * 0.05
    state = adapters.merged(fresh_tiny.model)
    for name, layer in fresh_tiny.model.named_modules():
        if hasattr(layer, "base_layer"):
            x = torch.randn(5, layer.base_layer.in_features)
            layer.base_layer.float()
            layer.eval()
            expected = layer(x) - (layer.base_layer.bias if layer.base_layer.bias is not None else 0)
            assert state[f"{name}.weight"].dtype == torch.float32
            assert torch.allclose(expected, x @ state[f"{name}.weight"].T, atol=1e-4), name
    assert fresh_tiny.model.model.language_model.layers[0].mlp.up_proj.weight.dtype == torch.bfloat16


def test_only_adapters_of_the_group_are_trained(fresh_tiny: LoadedModel) -> None:
    groups = select(fresh_tiny.model, learn(decoder_layers={"lr": 1e-3, "top": 1, "lora": {"rank": 2}}, projector=1e-4))
    set_trainable(fresh_tiny.model, groups, torch.float32)
    trained = {name for name, p in fresh_tiny.model.named_parameters() if p.requires_grad}
    assert {name for name in trained if not adapters.is_adapter(name)} == {
        name for name, _ in fresh_tiny.model.named_parameters() if "multi_modal_projector" in name
    }
    assert all("language_model.layers.3." in name for name in trained if adapters.is_adapter(name))
    rows = {row.group: row for row in describe(fresh_tiny.model, groups)}
    assert rows["decoder_layers"].note == "LoRA of rank 2"
    assert rows["decoder_layers"].parameters == 2 * (
        (128 + 128) * 2 + (128 + 64) * 2 + (128 + 384) * 3
    )  # queries and output, keys and values, the three of the MLP


@pytest.mark.parametrize("group", ["embeddings", "audio_front"])
def test_groups_that_cannot_have_adapters_are_refused(fresh_tiny: LoadedModel, group: str) -> None:
    with pytest.raises(UsageError, match=rf"groups.{group}.lora: only audio_layers, decoder_layers, projector"):
        select(fresh_tiny.model, learn(**{group: {"lr": 1e-3, "lora": {}}}))


@pytest.fixture(scope="module")
def adapted(small_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapted")
    commands.train.run(run_recipe(folder, small_corpus, *STAGES))
    return folder / "train"


def test_checkpoints_contain_merged_adapters_in_plain_weights(adapted: Path) -> None:
    folder = checkpoints.complete_checkpoints(adapted / "1-letters")[-1]
    start = load_file(TINY / "model.safetensors")
    found = load_file(folder / "model.safetensors")
    assert found.keys() == start.keys()
    Qwen3ASRForConditionalGeneration.from_pretrained(folder)
    moved = {name: found[name].float() - start[name].float() for name in start}
    changed = {name for name, difference in moved.items() if difference.abs().max() > 0}
    assert changed
    assert not any("embed" in name or "conv" in name or "norm" in name for name in changed)
    assert not any("audio_tower.layers.0." in name or "audio_tower.layers.1." in name for name in changed)
    for name in changed:
        if "layers." in name:
            assert torch.linalg.matrix_rank(moved[name], rtol=1e-3) <= 4, name


def test_checkpoints_hold_the_average_and_the_weights_to_resume_from(adapted: Path) -> None:
    folder = checkpoints.complete_checkpoints(adapted / "2-all")[-1]
    raw, average = checkpoints.trained_weights(folder)
    found = load_file(folder / "model.safetensors")
    assert raw.keys() == average.keys()
    assert all(torch.equal(found[name], average[name]) for name in average)
    assert any(not torch.equal(raw[name], average[name]) for name in raw)


def test_a_killed_run_with_adapters_and_averages_resumes_bit_identically(
    adapted: Path, small_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With dropout, moving average and activation checkpointing."""
    real, published = checkpoints.make_visible, 0

    def publish(*arguments) -> None:  # type: ignore[no-untyped-def]
        nonlocal published
        real(*arguments)
        published += 1
        if published in (1, 3):
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoints, "make_visible", publish)
    made = run_recipe(tmp_path, small_corpus, *STAGES)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            commands.train.run(made)
    commands.train.run(made)
    undisturbed, resumed = final_weights(adapted), final_weights(tmp_path / "train")
    assert all(torch.equal(undisturbed[name], resumed[name]) for name in undisturbed)
    assert metrics(adapted, "loss") == metrics(tmp_path / "train", "loss")


def test_a_step_is_aborted_when_the_run_is_asked_to_end(
    adapted: Path, small_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No other micro-batch begins; the next session repeats the step, with the same dropout."""
    passes = 0

    def forward(real: Forward, objective: CrossEntropy, batch: Batch) -> torch.Tensor:
        nonlocal passes
        passes += 1
        if passes in (1, 6):
            os.kill(os.getpid(), signal.SIGTERM)
        return real(objective, batch)

    spoil(monkeypatch, forward)
    made = run_recipe(tmp_path, small_corpus, *STAGES)
    with pytest.raises(Interrupted, match="stage letters was asked to end after step 0 of 4"):
        commands.train.run(made)
    assert passes == 1
    assert not checkpoints.complete_checkpoints(tmp_path / "train" / "1-letters")
    with pytest.raises(Interrupted, match="stage letters was asked to end after step 1 of 4"):
        commands.train.run(made)
    assert passes == 6
    [left] = checkpoints.complete_checkpoints(tmp_path / "train" / "1-letters")
    assert checkpoints.step_of(left) == 1
    commands.train.run(made)
    undisturbed, resumed = final_weights(adapted), final_weights(tmp_path / "train")
    assert all(torch.equal(undisturbed[name], resumed[name]) for name in undisturbed)


def test_activation_checkpointing_repeats_the_same_dropout(fresh_tiny: LoadedModel) -> None:
    select(fresh_tiny.model, learn(decoder_layers={"lr": 1e-3, "lora": {"rank": 3, "dropout": 0.5}}))
    for name, parameter in fresh_tiny.model.named_parameters():
        if adapters.is_adapter(name):
            parameter.data += 0.05
    found = []
    for every in (0, 1):
        checkpoint_activations(fresh_tiny.model, every)
        fresh_tiny.model.train()
        torch.manual_seed(3)
        found.append(gradients(fresh_tiny, [items(1.0, 2.5)])[1])
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
