from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import load_file
from transformers import AutoProcessor, Qwen3ASRForConditionalGeneration

from caspi import commands
from caspi.errors import CaspiError, UsageError
from caspi.export.formats import native_name, original_name
from caspi.model.config import ModelConfig
from caspi.model.loading import TINY, load, load_tokenizer
from caspi.training.planning.shapes import on_meta_device
from tests.conftest import tone


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
    commands.export.run("tiny", "hf", tmp_path / "out")
    model = Qwen3ASRForConditionalGeneration.from_pretrained(tmp_path / "out")
    assert model.dtype == torch.bfloat16
    AutoProcessor.from_pretrained(tmp_path / "out")


def test_original_layout_has_the_released_structure(tmp_path: Path) -> None:
    commands.export.run("tiny", "qwen-asr", tmp_path / "out")
    weights = load_file(tmp_path / "out" / "model.safetensors")
    assert all(name.startswith("thinker.") for name in weights)
    assert torch.equal(weights["thinker.lm_head.weight"], weights["thinker.model.embed_tokens.weight"])
    native = load_file(TINY / "model.safetensors")
    for name, tensor in native.items():
        assert torch.equal(weights[original_name(name)], tensor.to(torch.bfloat16))
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json", "preprocessor_config.json"):
        assert (tmp_path / "out" / name).is_file()


def test_original_config_has_every_key_of_the_released_one(real_tokenizer_folder: Path, tmp_path: Path) -> None:
    commands.export.run("tiny", "qwen-asr", tmp_path / "out")
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
    commands.export.run("tiny", "qwen-asr", tmp_path / "out")
    with pytest.raises(UsageError, match="original layout"):
        load(ModelConfig(start=str(tmp_path / "out")))


def test_an_export_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not one of hf, int8, fp8, qwen-asr"):
        commands.export.run("tiny", "gguf", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="not a model folder"):
        commands.export.run(str(tmp_path / "empty"), "hf", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_publish_dry_run_lists_a_loadable_model_and_no_training_state(small_run: Path) -> None:
    model = json.loads((small_run / "report.json").read_text())["final"]
    listed = commands.publish.run(model, "me/model", dry_run=True).summary["files"]
    names = {file["file"] for file in listed}
    assert {
        "model.safetensors",
        "config.json",
        "tokenizer.json",
        "processor_config.json",
        "chat_template.jinja",
    } <= names
    assert not names & {"optimizer.safetensors", "trainer_state.json", "rng_state.pth", "scheduler.pt"}


def test_an_export_has_the_permissions_of_its_folder(tmp_path: Path) -> None:
    for to in ("hf", "qwen-asr"):
        commands.export.run("tiny", to, tmp_path / to)
        modes = {path.stat().st_mode & 0o777 for path in (tmp_path / to).iterdir()}
        assert len(modes) == 1


def test_the_original_layouts_tokenizer_is_readable_by_transformers_4(tmp_path: Path) -> None:
    commands.export.run("tiny", "qwen-asr", tmp_path / "out")
    config = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())
    assert isinstance(config["additional_special_tokens"], list)
    assert config["extra_special_tokens"] == {
        "audio_bos_token": "<|audio_start|>", "audio_eos_token": "<|audio_end|>", "audio_token": "<|audio_pad|>",
    }  # fmt: skip
    generation = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    tokenizer = load_tokenizer(TINY)
    assert generation["eos_token_id"] == [tokenizer.convert_tokens_to_ids("<|im_end|>")]


@pytest.mark.parametrize("name", ["not a repo!! x", "model", "a/b/c", "me/../x"])
def test_an_invalid_repository_name_is_refused_before_reading_the_model(name: str) -> None:
    with pytest.raises(UsageError, match="is not the name of a repository"):
        commands.publish.run("/nowhere", name, dry_run=True)


class Hub:
    """Records the requests to the Hub."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **options: self.calls.append((name, {"args": args, **options}))


def test_an_original_layout_export_is_published_privately_with_its_own_card(
    tmp_path: Path, small_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    final = json.loads((small_run / "report.json").read_text())["final"]
    commands.export.run(final, "qwen-asr", tmp_path / "out")
    hub = Hub()
    monkeypatch.setattr("caspi.hub.HfApi", lambda: hub)
    commands.publish.run(str(tmp_path / "out"), "me/model", dry_run=False, skip_parity=True)
    calls = dict(hub.calls)
    assert calls["create_repo"]["private"] is True
    assert "vocab.json" in calls["upload_folder"]["allow_patterns"]
    card = calls["upload_file"]["path_or_fileobj"].decode()
    assert "library_name: qwen-asr" in card
    assert 'Qwen3ASRModel.from_pretrained("me/model")' in card
    assert "Give it clips of at most" in card
    assert "from transformers import" not in card
    (tmp_path / "out" / "config.json").write_text('{"thinker_config": 1}')
    with pytest.raises(UsageError, match="is not a model in the layout of qwen-asr"):
        commands.publish.run(str(tmp_path / "out"), "me/model", dry_run=True)


def test_the_code_of_a_card_runs(small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:  # type: ignore[no-untyped-def]
    """Copies the code from the card and runs it in a folder with a clip, as a user would."""
    final = Path(json.loads((small_run / "report.json").read_text())["final"])
    code = (final / "README.md").read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    soundfile.write(tmp_path / "clip.wav", tone(2.0), 16_000)
    monkeypatch.chdir(tmp_path)
    exec(code.replace("REPOSITORY", str(final)).replace("max_new_tokens=512", "max_new_tokens=8"), {})
    assert capsys.readouterr().out.strip()


class ConnectError(Exception):
    """Has the class name that the HTTP library of huggingface_hub uses."""


def test_an_unreachable_hub_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def down(*_: Any, **__: Any) -> None:
        raise ConnectError("Name or service not known")

    monkeypatch.setattr("caspi.hub.HfApi.create_repo", down)
    with pytest.raises(CaspiError, match="the Hub cannot be reached"):
        commands.publish.run("tiny", "me/model", dry_run=False, skip_parity=True)


def test_a_model_that_is_not_cached_is_requested_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def nowhere(repository: str, file: str, **_: Any) -> None:
        asked.append(file)
        raise LocalEntryNotFoundError("no connection")

    monkeypatch.setattr("caspi.hub.hf_hub_download", nowhere)
    with pytest.raises(UsageError, match="model someone/model is not on this machine, and the Hub cannot be reached"):
        load(ModelConfig(start="someone/model"))
    assert asked == ["config.json"]


def test_an_export_never_replaces_its_source(tmp_path: Path) -> None:
    commands.export.run("tiny", "hf", tmp_path / "model")
    before = (tmp_path / "model" / "model.safetensors").read_bytes()
    for out in (tmp_path / "model", tmp_path / "model" / "inside"):
        with pytest.raises(UsageError, match="is the model that is exported"):
            commands.export.run(str(tmp_path / "model"), "int8", out)
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == before


def test_the_card_of_eight_bits_says_what_loads_it(tmp_path: Path) -> None:
    for to in ("int8", "qwen-asr-fp8"):
        commands.export.run("tiny", to, tmp_path / to)
        card = (tmp_path / to / "README.md").read_text(encoding="utf-8")
        assert "transformers needs the package `compressed-tensors`" in card
