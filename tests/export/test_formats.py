from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoProcessor, Qwen3ASRForConditionalGeneration

from caspi import commands
from caspi.errors import UsageError
from caspi.export.formats import native_name, original_name
from caspi.model.config import ModelConfig
from caspi.model.loading import TINY, load
from caspi.training.preflight import on_meta_device


def test_names_map_one_to_one_both_ways() -> None:
    names = [name for name, _ in on_meta_device(ModelConfig(init="random", scale="1.7b")).named_parameters()] + [
        "lm_head.weight"
    ]
    mapped = [original_name(name) for name in names]
    assert len(set(mapped)) == len(names)
    assert [native_name(name) for name in mapped] == names
    assert "thinker.audio_tower.proj1.weight" in mapped
    assert "thinker.model.layers.0.self_attn.q_proj.weight" in mapped
    assert "thinker.lm_head.weight" in mapped


def test_hf_export_loads_in_bf16(tmp_path: Path) -> None:
    commands.export("tiny", "hf", tmp_path / "out")
    model = Qwen3ASRForConditionalGeneration.from_pretrained(tmp_path / "out")
    assert model.dtype == torch.bfloat16
    AutoProcessor.from_pretrained(tmp_path / "out")


def test_original_layout_has_the_released_structure(tmp_path: Path) -> None:
    commands.export("tiny", "qwen-asr", tmp_path / "out")
    weights = load_file(tmp_path / "out" / "model.safetensors")
    assert all(name.startswith("thinker.") for name in weights)
    assert torch.equal(weights["thinker.lm_head.weight"], weights["thinker.model.embed_tokens.weight"])
    native = load_file(TINY / "model.safetensors")
    for name, tensor in native.items():
        assert torch.equal(weights[original_name(name)], tensor.to(torch.bfloat16))
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json", "preprocessor_config.json"):
        assert (tmp_path / "out" / name).is_file()


def test_original_config_has_every_key_of_the_released_one(real_tokenizer_folder: Path, tmp_path: Path) -> None:
    commands.export("tiny", "qwen-asr", tmp_path / "out")
    ours = json.loads((tmp_path / "out" / "config.json").read_text())
    released = json.loads((real_tokenizer_folder / "config.json").read_text())
    assert ours["model_type"] == released["model_type"]
    assert ours["thinker_config"]["model_type"] == released["thinker_config"]["model_type"]
    shape_keys = {"d_model", "encoder_layers", "encoder_attention_heads", "encoder_ffn_dim", "downsample_hidden_size",
                  "output_dim", "n_window", "n_window_infer", "num_mel_bins", "model_type"}  # fmt: skip
    assert shape_keys <= ours["thinker_config"]["audio_config"].keys()
    text_keys = {"hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "head_dim",
                 "num_key_value_heads", "vocab_size", "rope_theta", "rope_scaling", "tie_word_embeddings",
                 "model_type"}  # fmt: skip
    assert text_keys <= ours["thinker_config"]["text_config"].keys()
    section = ours["thinker_config"]["text_config"]["rope_scaling"]["mrope_section"]
    assert sum(section) == ours["thinker_config"]["text_config"]["head_dim"] // 2


def test_the_original_layout_is_not_mistaken_for_the_native_one(tmp_path: Path) -> None:
    commands.export("tiny", "qwen-asr", tmp_path / "out")
    with pytest.raises(UsageError, match="original layout"):
        load(ModelConfig(start=str(tmp_path / "out")))


def test_an_export_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not one of hf, qwen-asr"):
        commands.export("tiny", "gguf", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="not a model folder"):
        commands.export(str(tmp_path / "empty"), "hf", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_publish_dry_run_lists_a_loadable_model_and_no_training_state(small_run: Path) -> None:
    model = json.loads((small_run / "report.json").read_text())["final"]
    listed = commands.publish(model, "me/model", dry_run=True).summary["files"]
    names = {file["file"] for file in listed}
    assert {
        "model.safetensors",
        "config.json",
        "tokenizer.json",
        "processor_config.json",
        "chat_template.jinja",
    } <= names
    assert not names & {"optimizer.safetensors", "trainer_state.json", "rng_state.pth", "scheduler.pt"}
