"""Adapters alone, loaded by PEFT onto their base."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import Qwen3ASRForConditionalGeneration

from caspi import commands
from caspi.errors import UsageError
from caspi.model.loading import TINY
from caspi.training.checkpoint import files as checkpoints
from tests.support import run_recipe

LORA = {"plain": "{rank: 4, alpha: 8}", "dora": "{rank: 2, alpha: 4, dora: true}"}


TWO_GROUPS = (
    f"{{decoder_layers: {{lr: 1e-2, lora: {LORA['plain']}}}, audio_layers: {{lr: 1e-2, top: 2, lora: {{rank: 3}}}}}}"
)


def trained(folder: Path, corpus: Path, groups: str, *more: str) -> Path:
    """The last checkpoint of a run with one stage."""
    stages = f"train.stages=[{{name: adapters, epochs: 0.5, groups: {groups}}}]"
    commands.train.run(run_recipe(folder, corpus, stages, *more))
    return checkpoints.complete_checkpoints(folder / "train" / "1-adapters")[-1]


@pytest.mark.parametrize(
    ("groups", "more"),
    [
        (TWO_GROUPS, ()),
        (f"{{decoder_layers: {{lr: 1e-2, lora: {LORA['dora']}}}}}", ("train.stages.0.ema=0.8",)),
    ],
)
def test_peft_gives_the_merged_weights(small_corpus: Path, tmp_path: Path, groups: str, more: tuple[str, ...]) -> None:
    """Two groups of different rank, and DoRA with a moving average."""
    checkpoint = trained(tmp_path, small_corpus, groups, *more)
    out = tmp_path / "adapters"
    commands.export.run(str(checkpoint), "peft", out)
    base = Qwen3ASRForConditionalGeneration.from_pretrained(TINY, dtype=torch.float32)
    model = PeftModel.from_pretrained(base, out)
    assert model.peft_config["default"].base_model_name_or_path == "tiny"
    assert not {name for name in load_file(out / "adapter_model.safetensors") if ".lora_" not in name}
    found = dict(model.merge_and_unload().named_parameters())
    wanted = load_file(checkpoint / "model.safetensors")
    moved = 0
    for name, start in Qwen3ASRForConditionalGeneration.from_pretrained(TINY, dtype=torch.float32).named_parameters():
        assert torch.allclose(found[name], wanted[name].float(), atol=1e-5), name
        moved += not torch.equal(start, wanted[name].float())
    assert moved > 4
    assert "PeftModel" in (out / "README.md").read_text()
    assert not (out / "model.safetensors").exists()


def test_what_is_no_adapter_alone_is_refused(small_corpus: Path, tmp_path: Path) -> None:
    mixed = trained(tmp_path, small_corpus, f"{{projector: 1e-3, decoder_layers: {{lr: 1e-2, lora: {LORA['plain']}}}}}")
    with pytest.raises(UsageError, match="4 weights beside adapters, such as model"):
        commands.export.run(str(mixed), "peft", tmp_path / "out")
    with pytest.raises(UsageError, match="has no adapters"):
        commands.export.run("tiny", "peft", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_second_stage_has_the_first_as_its_base(small_corpus: Path, tmp_path: Path) -> None:
    stages = (
        "train.stages=[{name: letters, epochs: 0.5, groups: {projector: 1e-3}}, "
        f"{{name: adapters, epochs: 0.5, groups: {{decoder_layers: {{lr: 1e-2, lora: {LORA['plain']}}}}}}}]"
    )
    commands.train.run(run_recipe(tmp_path, small_corpus, stages))
    last = checkpoints.complete_checkpoints(tmp_path / "train" / "2-adapters")[-1]
    commands.export.run(str(last), "peft", tmp_path / "out")
    base = checkpoints.complete_checkpoints(tmp_path / "train" / "1-letters")[-1]
    loaded = Qwen3ASRForConditionalGeneration.from_pretrained(base, dtype=torch.float32)
    model = PeftModel.from_pretrained(loaded, tmp_path / "out")
    assert model.peft_config["default"].base_model_name_or_path == str(base)
    found = dict(model.merge_and_unload().named_parameters())
    wanted = load_file(last / "model.safetensors")
    assert all(torch.allclose(found[name], wanted[name].float(), atol=1e-5) for name in found)
