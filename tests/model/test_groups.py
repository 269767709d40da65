from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from caspi.errors import UsageError
from caspi.model.architectures import configuration
from caspi.model.config import GroupTraining, ModelConfig
from caspi.model.groups import describe, partition, select, set_trainable
from caspi.model.loading import LoadedModel, load_tokenizer
from caspi.training.planning.shapes import on_meta_device

# Millions of parameters of the released 1.7B, native names.
RELEASED = {"audio_front": 12.0, "audio_layers": 302.3, "projector": 3.1, "decoder_layers": 1409.4, "embeddings": 311.2}


@pytest.fixture(scope="module")
def released() -> torch.nn.Module:
    return on_meta_device(ModelConfig(init="random", scale="1.7b"))


def test_groups_of_the_released_model_have_the_known_sizes(released: torch.nn.Module) -> None:
    sizes = {name: p.numel() for name, p in released.named_parameters()}
    totals: dict[str, int] = {}
    for label, names in partition(released).items():
        stack = label.partition("[")[0]
        totals[stack] = totals.get(stack, 0) + sum(sizes[name] for name in names)
    assert {name: round(count / 1e6, 1) for name, count in totals.items()} == RELEASED
    assert sum(totals.values()) == pytest.approx(2_038e6, rel=1e-3)
    assert all(p.device.type == "meta" for p in released.parameters())


def test_random_weights_with_the_real_tokenizer_have_the_released_shape(real_tokenizer_folder: Path) -> None:
    config = configuration("1.7b", load_tokenizer(real_tokenizer_folder))
    assert config.text_config.vocab_size == 151_936
    assert (config.audio_token_id, config.eos_token_id, config.pad_token_id) == (151_676, 151_645, 151_643)


@pytest.mark.parametrize("which", ["released", "tiny"])
def test_every_parameter_is_in_exactly_one_group(which: str, released: torch.nn.Module, tiny: LoadedModel) -> None:
    model = released if which == "released" else tiny.model
    members = [name for names in partition(model).values() for name in names]
    assert len(members) == len(set(members))
    assert set(members) == {name for name, _ in model.named_parameters()}


def test_a_parameter_without_a_group_is_an_error(fresh_tiny: LoadedModel) -> None:
    fresh_tiny.model.model.extra = torch.nn.Linear(2, 2)
    with pytest.raises(ValueError, match=r"model\.extra\.weight belongs to no group"):
        partition(fresh_tiny.model)


def test_parameters_with_misleading_names_are_in_their_groups(released: torch.nn.Module) -> None:
    """Trap: freezing by substring missed conv_out, the final norms and the tied head."""
    groups = partition(released)
    assert "model.audio_tower.conv_out.weight" in groups["audio_front"]
    assert "model.audio_tower.ln_post.weight" in groups["audio_layers[23]"]
    assert "model.language_model.norm.weight" in groups["decoder_layers[27]"]
    assert groups["embeddings"] == ["model.language_model.embed_tokens.weight"]


@pytest.mark.parametrize(("top", "count"), [(12, 12), (0.43, 12), (1.0, 28), (None, 28)])
def test_top_by_count_or_share(released: torch.nn.Module, top: int | float | None, count: int) -> None:
    [group] = select(released, {"decoder_layers": GroupTraining(lr=1e-4, top=top)})
    layers = {name.split(".")[3] for name in group.names if ".layers." in name}
    assert layers == {str(n) for n in range(28 - count, 28)}
    assert "model.language_model.norm.weight" in group.names


def test_the_same_share_fits_tiny(tiny: LoadedModel) -> None:
    [group] = select(tiny.model, {"decoder_layers": GroupTraining(lr=1e-4, top=0.43)})
    assert {name.split(".")[3] for name in group.names if ".layers." in name} == {"2", "3"}


def test_more_layers_than_there_are_is_an_error(tiny: LoadedModel) -> None:
    with pytest.raises(UsageError, match="12 layers, but the model has only 4"):
        select(tiny.model, {"decoder_layers": GroupTraining(lr=1e-4, top=12)})


@pytest.mark.parametrize("top", [0, 1.5, -0.1])
def test_impossible_top_is_an_error(top: float) -> None:
    with pytest.raises(ValidationError):
        GroupTraining(lr=1e-4, top=top)


def test_trainable_is_fp32_and_frozen_is_bf16(fresh_tiny: LoadedModel) -> None:
    groups = select(fresh_tiny.model, {"projector": GroupTraining(lr=1e-4), "embeddings": GroupTraining(lr=1e-4)})
    set_trainable(fresh_tiny.model, groups, torch.bfloat16)
    trained = {name for group in groups for name in group.names}
    for name, parameter in fresh_tiny.model.named_parameters():
        assert parameter.requires_grad == (name in trained)
        assert parameter.dtype == (torch.float32 if name in trained else torch.bfloat16)
    assert fresh_tiny.model.lm_head.weight is fresh_tiny.model.model.language_model.embed_tokens.weight


def test_the_tied_head_is_reported(tiny: LoadedModel) -> None:
    [row] = describe(tiny.model, select(tiny.model, {"embeddings": GroupTraining(lr=1e-4)}))
    assert "lm_head" in row.note


def test_bf16_training_moves_small_weights(fresh_tiny: LoadedModel) -> None:
    """Trap: at lr 2e-5 a bf16 weight of 0.02 never moves; an fp32 one does."""
    groups = select(fresh_tiny.model, {"projector": GroupTraining(lr=2e-5)})
    set_trainable(fresh_tiny.model, groups, torch.bfloat16)
    weight = dict(fresh_tiny.model.named_parameters())[groups[0].names[0]]
    before = weight.detach().clone()
    optimizer = torch.optim.AdamW([weight], lr=2e-5, weight_decay=0.0)
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    assert ((weight.detach() - before).abs() > 1e-5).all()
