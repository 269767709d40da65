"""Low-rank adapters by PEFT: added to the linear layers of a group, merged into plain weights for every checkpoint."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners import lora
from torch import nn

from caspi.model.config import Lora

_BASE = ".base_layer."
_NAME = "default"  # PEFT's default; the same for all groups, because PEFT activates one name at a time


def add(model: nn.Module, parameters: Iterable[str], config: Lora) -> None:
    """Adds adapters in place to the linear layers of `parameters`. Untrained adapters do not change the output."""
    modules = dict(model.named_modules())
    module_names = dict.fromkeys(name.rpartition(".")[0] for name in parameters)
    linear = [module_name for module_name in module_names if isinstance(modules[module_name], nn.Linear)]
    peft_config = LoraConfig(
        r=config.rank, lora_alpha=config.alpha, lora_dropout=config.dropout, use_dora=config.dora, target_modules=linear
    )
    inject_adapter_in_model(peft_config, model, adapter_name=_NAME)
    del model.peft_config  # otherwise PEFT warns when the next group is added


def is_adapter(parameter: str) -> bool:
    """Whether the parameter with this name belongs to an adapter."""
    return ".lora_" in parameter


def described(model: nn.Module) -> dict[str, dict[str, float | bool]]:
    """Rank, alpha and kind of the adapter of every layer that has one."""
    return {
        name: {"rank": layer.r[_NAME], "alpha": layer.lora_alpha[_NAME], "dora": bool(layer.use_dora[_NAME])}
        for name, layer in model.named_modules()
        if isinstance(layer, lora.Linear)
    }


def plain_name(parameter: str) -> str:
    """Of a parameter of an adapter, as PEFT stores it: without the adapter's name."""
    return parameter.replace(f".{_NAME}.", ".").removesuffix(f".{_NAME}")


@torch.no_grad()
def merged(model: nn.Module) -> dict[str, torch.Tensor]:
    """The model's parameters with adapters merged into the weights, in fp32. Does not change the model."""
    named = {name: parameter.data for name, parameter in model.named_parameters()}
    state = {name.replace(_BASE, "."): tensor for name, tensor in named.items() if not is_adapter(name)}
    for name, layer in model.named_modules():
        if isinstance(layer, lora.Linear):
            weight: torch.Tensor = layer.get_parameter("base_layer.weight")
            original = weight.data
            weight.data = original.float().clone()
            layer.merge()
            state[f"{name}.weight"] = weight.data
            weight.data = original
            layer.merged_adapters.clear()
    return state
