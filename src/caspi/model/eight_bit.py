"""Weights in eight bits: int8 or fp8 (e4m3) values with a scale for each output row, in the layout of
compressed-tensors, which vLLM and transformers read too. Only the decoder's linear layers; encoder, embeddings and head
stay in 16 bits."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch

Format = Literal["int8", "fp8"]
DTYPES: dict[Format, torch.dtype] = {"int8": torch.int8, "fp8": torch.float8_e4m3fn}
LARGEST: dict[Format, float] = {"int8": 127.0, "fp8": 448.0}
_COMPRESSED: dict[Format, tuple[str, str]] = {"int8": ("int-quantized", "int"), "fp8": ("float-quantized", "float")}
_LINEAR = re.compile(r"\.layers\.\d+\.(self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj)\.weight$")
_SCALE = "_scale"  # after the name of the weight


@dataclass(frozen=True, slots=True)
class EightBitWeight:
    """values: int8 or float8_e4m3fn [out, in]; scales: float32 [out]. The weight is values * scales."""

    values: torch.Tensor
    scales: torch.Tensor

    @classmethod
    def of(cls, weight: torch.Tensor, form: Format) -> EightBitWeight:
        """The nearest values, [out, in]; the scale makes the largest of each row the largest possible. Scales are
        numbers of bf16, which all programs read alike."""
        exact = weight.float().abs().amax(dim=1).clamp(min=1e-12) / LARGEST[form]
        scales = exact.bfloat16().float()
        scales = torch.where(
            scales < exact, (scales * (1 + 2**-7)).bfloat16().float(), scales
        )  # never beyond the range
        scaled = weight.float() / scales[:, None]
        return cls((scaled.round() if form == "int8" else scaled).to(DTYPES[form]), scales)

    def float(self) -> torch.Tensor:
        """The weight, float32 [out, in]."""
        return self.values.float() * self.scales[:, None]


def quantised(weights: Mapping[str, torch.Tensor], form: Format) -> dict[str, torch.Tensor]:
    """All tensors of a checkpoint, in either layout's names, with the decoder's linear layers in eight bits."""
    result: dict[str, torch.Tensor] = {}
    for name, tensor in weights.items():
        if is_quantisable(name):
            weight = EightBitWeight.of(tensor, form)
            result[name], result[name + _SCALE] = weight.values, weight.scales[:, None].clone()
        else:
            result[name] = tensor
    return result


def is_quantisable(name: str) -> bool:
    """Whether a parameter belongs to a linear layer of the decoder."""
    return _LINEAR.search(name) is not None and "audio_tower" not in name


def separate(tensors: Mapping[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], dict[str, EightBitWeight]]:
    """The tensors of a checkpoint by `quantised`: those in 16 bits or more, and those in eight."""
    eight = {
        name: EightBitWeight(tensor, tensors[name + _SCALE].float().flatten())
        for name, tensor in tensors.items()
        if name + _SCALE in tensors
    }
    others = {
        name: tensor for name, tensor in tensors.items() if name not in eight and name.removesuffix(_SCALE) not in eight
    }
    return others, eight


# Linear layers in 16 bits, by the names that any of the programs uses.
_IGNORED = ["re:.*audio_tower.*", "re:.*multi_modal_projector.*", "re:.*lm_head.*"]


def compressed_tensors_config(form: Format) -> dict[str, Any]:
    """`quantization_config` of config.json: weights by row, activations by token while the model runs. The keys are
    those of compressed-tensors, class QuantizationConfig."""
    layout, kind = _COMPRESSED[form]
    common = {"num_bits": 8, "type": kind, "symmetric": True}
    return {
        "quant_method": "compressed-tensors",
        "format": layout,
        "quantization_status": "compressed",
        "ignore": _IGNORED,
        "config_groups": {
            "group_0": {
                "targets": ["Linear"],
                "format": layout,
                "weights": common | {"strategy": "channel", "dynamic": False},
                "input_activations": common | {"strategy": "token", "dynamic": True},
            }
        },
    }


def eight_bit_format(config: Mapping[str, Any]) -> Format | None:
    """What `quantization_config` in the content of a config.json says; None for 16 bits or more."""
    layout = (config.get("quantization_config") or {}).get("format")
    return next((form for form, (name, _) in _COMPRESSED.items() if name == layout), None)
