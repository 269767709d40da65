"""The adapters of a checkpoint without the weights that they change, as PEFT and vLLM load them."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from peft import LoraConfig
from safetensors import safe_open
from safetensors.torch import save_file

from caspi.errors import UsageError
from caspi.model.adapters import is_adapter, plain_name
from caspi.training.checkpoint.files import ADAPTERS, TRAINED, complete_checkpoints, trained_weights

_PREFIX = "base_model.model."
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")  # as PEFT names them
_MAGNITUDE = ".lora_magnitude_vector"


def write_adapters(checkpoint: Path, out: Path) -> None:
    """adapter_config.json and the adapters of a checkpoint of a stage that trains nothing else. The base is the model
    that the stage began with. Raises UsageError."""
    file = checkpoint / TRAINED
    if not file.is_file():
        raise UsageError(f"{checkpoint} has no adapters: give a checkpoint of a stage with groups.*.lora")
    with safe_open(file, framework="pt") as opened:
        described: dict[str, dict[str, Any]] = json.loads((opened.metadata() or {}).get(ADAPTERS, "{}"))
    raw, average = trained_weights(checkpoint)
    weights = average or raw
    if others := [name for name in weights if not is_adapter(name)]:
        raise UsageError(
            f"{checkpoint}: its stage trained {len(others)} weights beside adapters, such as {others[0]}, which an "
            "adapter cannot hold: export the merged model (--to hf)"
        )
    if not described:
        raise UsageError(f"{checkpoint}: made by an earlier caspi, which did not store what its adapters are")
    _config(described, _base_of(checkpoint)).save_pretrained(str(out))
    tensors = {_PREFIX + _peft_name(name): tensor.contiguous() for name, tensor in weights.items()}
    save_file(tensors, out / ADAPTER_FILES[1], {"format": "pt"})


def _peft_name(parameter: str) -> str:
    name = plain_name(parameter)
    return name.removesuffix(".weight") if _MAGNITUDE in name else name


def _config(described: dict[str, dict[str, Any]], base: str) -> LoraConfig:
    ranks = {name: one["rank"] for name, one in described.items()}
    alphas = {name: one["alpha"] for name, one in described.items()}
    rank, alpha = (Counter(values.values()).most_common(1)[0][0] for values in (ranks, alphas))
    return LoraConfig(
        base_model_name_or_path=base,
        r=rank,
        lora_alpha=alpha,
        rank_pattern={name: value for name, value in ranks.items() if value != rank},
        alpha_pattern={name: value for name, value in alphas.items() if value != alpha},
        target_modules=sorted(described),
        use_dora=any(one["dora"] for one in described.values()),
        inference_mode=True,
    )


def _base_of(checkpoint: Path) -> str:
    """What the stage of a checkpoint began with: the last checkpoint of the stage before it, or the run's model."""
    stage = checkpoint.resolve().parent
    number, _, _ = stage.name.partition("-")
    before = sorted(stage.parent.glob(f"{int(number) - 1}-*")) if number.isdecimal() else []
    if before and (found := complete_checkpoints(before[0])):
        return str(found[-1])
    try:
        run = json.loads((stage.parent / "run.json").read_text(encoding="utf-8"))
        return str(run["model"]["start"])
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(f"{checkpoint} is not in the folder of its run, which names its base") from error
