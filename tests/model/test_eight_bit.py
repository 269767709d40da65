"""Weights in eight bits: what is rounded, how far, and where such a model is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import linear

from caspi import commands
from caspi.errors import UsageError
from caspi.inference.engine.engine import Engine
from caspi.inference.engine.matrices import EightBitMatrix, joined
from caspi.inference.engine.requests import DecodeRequest
from caspi.model.config import ModelConfig
from caspi.model.eight_bit import DTYPES, EightBitWeight, Format, is_quantisable, quantised, separate
from caspi.model.files import read_tensors, read_weights
from caspi.model.loading import LoadedModel, load

FORMATS = pytest.mark.parametrize("form", list(DTYPES))


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.floats(-6.0, 3.0), st.sampled_from(list(DTYPES)))
def test_every_value_is_rounded_to_the_nearest_step(seed: int, magnitude: float, form: Format) -> None:
    weight = torch.randn(7, 24, generator=torch.Generator().manual_seed(seed)) * 10**magnitude
    stored = EightBitWeight.of(weight, form)
    error = (stored.float() - weight).abs()
    step = stored.scales[:, None] if form == "int8" else weight.abs() * 2**-3 + stored.scales[:, None] * 2**-9
    assert (error <= 0.5001 * step).all()
    assert torch.equal(stored.scales, stored.scales.bfloat16().float()), "all programs read the scales alike"


@FORMATS
def test_only_linear_layers_of_the_decoder_are_in_eight_bits(tiny: LoadedModel, form: Format) -> None:
    weights = dict(tiny.model.state_dict())
    others, eight = separate(quantised(weights, form))
    assert len(eight) == 7 * tiny.model.config.text_config.num_hidden_layers
    assert all("language_model.layers" in name and "norm" not in name for name in eight)
    assert others.keys() | eight.keys() == weights.keys()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in others.items())


def test_names_of_both_layouts() -> None:
    assert is_quantisable("thinker.model.layers.3.mlp.up_proj.weight")
    assert not is_quantisable("thinker.audio_tower.layers.3.self_attn.q_proj.weight")
    assert not is_quantisable("thinker.lm_head.weight")


def test_an_int8_product_is_that_of_rounded_inputs_and_weights() -> None:
    """Worked out in whole numbers: the scales are the largest of each token and of each row over 127."""
    draw = torch.Generator().manual_seed(0)
    inputs, weight = torch.randn(5, 32, generator=draw), torch.randn(16, 32, generator=draw)
    matrix = joined([EightBitWeight.of(weight, "int8")], torch.device("cpu"), torch.float32)
    assert isinstance(matrix, EightBitMatrix)
    token_scales = inputs.abs().amax(dim=1, keepdim=True) / 127
    whole = (inputs / token_scales).round().long() @ matrix.values.long().T
    assert torch.allclose(matrix(inputs), whole.float() * token_scales * matrix.scales, rtol=1e-5)
    assert (matrix(inputs) - linear(inputs, weight)).abs().max() < 0.15


def test_an_input_of_zeros_gives_zeros() -> None:
    matrix = joined([EightBitWeight.of(torch.ones(8, 8), "int8")], torch.device("cpu"), torch.float32)
    assert isinstance(matrix, EightBitMatrix)
    assert torch.equal(matrix(torch.zeros(2, 8)), torch.zeros(2, 8))


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("exports")
    for form in DTYPES:
        commands.export.run("tiny", form, folder / form)
    return {form: folder / form for form in DTYPES}


@FORMATS
def test_an_export_is_decoded_nearly_as_the_model(
    exports: dict[str, Path], form: Format, tiny: LoadedModel, speech
) -> None:  # type: ignore[no-untyped-def]
    loaded = load(ModelConfig(start=str(exports[form])))
    assert len(loaded.eight_bit) == 28
    request = DecodeRequest(speech, language="Spanish", max_tokens=12, min_tokens=12)
    [exact], [rounded] = Engine(tiny).decode([request]), Engine(loaded).decode([request])
    assert rounded.tokens[:4] == exact.tokens[:4]
    assert rounded.log_probabilities[:4] == pytest.approx(exact.log_probabilities[:4], abs=0.2)
    assert rounded.log_probabilities != exact.log_probabilities


@FORMATS
def test_a_loaded_export_has_the_weights_of_its_file(exports: dict[str, Path], form: Format) -> None:
    _, eight = separate(read_tensors(exports[form]))
    parameters = dict(load(ModelConfig(start=str(exports[form]))).model.named_parameters())
    assert all(torch.equal(parameters[name], weight.float()) for name, weight in eight.items())
    assert all(weight.values.dtype == DTYPES[form] for weight in eight.values())


def test_an_export_in_eight_bits_is_much_smaller(exports: dict[str, Path], tmp_path: Path) -> None:
    commands.export.run("tiny", "hf", tmp_path / "hf")
    size = {name: (folder / "model.safetensors").stat().st_size for name, folder in exports.items()}
    linear_layers = sum(weight.values.numel() for weight in separate(read_tensors(exports["int8"]))[1].values())
    assert (tmp_path / "hf" / "model.safetensors").stat().st_size - size["int8"] > 0.95 * linear_layers


def test_only_decoding_starts_from_eight_bits(exports: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="export in eight bits"):
        commands.export.run(str(exports["int8"]), "qwen-asr", tmp_path / "again")
    with pytest.raises(UsageError, match="export in eight bits"):
        read_weights(exports["fp8"])


def test_the_file_names_its_scheme_as_compressed_tensors_does(exports: dict[str, Path]) -> None:
    scheme = json.loads((exports["int8"] / "config.json").read_text())["quantization_config"]
    assert scheme["quant_method"] == "compressed-tensors"
    assert scheme["config_groups"]["group_0"]["weights"]["strategy"] == "channel"
