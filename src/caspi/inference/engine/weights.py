"""The decoder's weights as the engine uses them: in one dtype, with projections of the same input fused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from transformers import Qwen3ASRForConditionalGeneration

from caspi.inference.engine.matrices import Matrix, joined
from caspi.model import adapters
from caspi.model.eight_bit import EightBitWeight

_PREFIX = "model.language_model."  # of the decoder's parameters in the whole model
_NONE: Mapping[str, EightBitWeight] = {}


@dataclass(frozen=True, slots=True)
class BlockWeights:
    """One block. query_key_value: [(heads + 2 key heads) * head width, width]; query_key_norm: of each head,
    [heads + key heads, head width]; gate_up: [2 * inner width, width]."""

    input_norm: torch.Tensor
    query_key_value: Matrix
    query_key_norm: torch.Tensor
    output: Matrix
    mlp_norm: torch.Tensor
    gate_up: Matrix
    down: Matrix


@dataclass(frozen=True, slots=True)
class DecoderWeights:
    """All of the decoder. rotary: (cosine, sine) float32 [positions, head width]. heads, key_heads: of attention."""

    blocks: list[BlockWeights]
    embedding: torch.Tensor
    norm: torch.Tensor
    head: torch.Tensor
    rotary: tuple[torch.Tensor, torch.Tensor]
    heads: int
    key_heads: int
    head_width: int
    epsilon: float

    @classmethod
    @torch.no_grad()
    def of(
        cls,
        model: Qwen3ASRForConditionalGeneration,
        dtype: torch.dtype,
        positions: int,
        eight_bit: Mapping[str, EightBitWeight] = _NONE,
    ) -> DecoderWeights:
        """A copy of the model's decoder in `dtype`, with adapters merged. positions: of the longest sequence.
        eight_bit: weights to use instead of the model's, by the names of its parameters."""
        config = model.config.text_config
        named = _decoder_parameters(model)
        width = config.head_dim
        device = model.lm_head.weight.device

        def weight(name: str) -> torch.Tensor:
            return named[name].to(dtype)

        def matrix(*names: str) -> Matrix:
            stored = [eight_bit[_PREFIX + name] for name in names if _PREFIX + name in eight_bit]
            if stored:
                return joined(stored, device, dtype)
            return torch.cat([weight(name) for name in names]) if len(names) > 1 else weight(names[0])

        blocks = []
        for number in range(config.num_hidden_layers):
            of = f"layers.{number}."
            attention, mlp = f"{of}self_attn.", f"{of}mlp."
            blocks.append(
                BlockWeights(
                    input_norm=weight(f"{of}input_layernorm.weight"),
                    query_key_value=matrix(*(f"{attention}{name}_proj.weight" for name in "qkv")),
                    query_key_norm=torch.cat(
                        [
                            weight(f"{attention}q_norm.weight").expand(config.num_attention_heads, -1),
                            weight(f"{attention}k_norm.weight").expand(config.num_key_value_heads, -1),
                        ]
                    ),
                    output=matrix(f"{attention}o_proj.weight"),
                    mlp_norm=weight(f"{of}post_attention_layernorm.weight"),
                    gate_up=matrix(f"{mlp}gate_proj.weight", f"{mlp}up_proj.weight"),
                    down=matrix(f"{mlp}down_proj.weight"),
                )
            )
        embedding = weight("embed_tokens.weight")
        tied = model.lm_head.weight is model.get_input_embeddings().weight
        return cls(
            blocks=blocks,
            embedding=embedding,
            norm=weight("norm.weight"),
            head=embedding if tied else model.lm_head.weight.detach().to(dtype),
            rotary=_rotary_table(model, positions),
            heads=config.num_attention_heads,
            key_heads=config.num_key_value_heads,
            head_width=width,
            epsilon=config.rms_norm_eps,
        )


def _decoder_parameters(model: Qwen3ASRForConditionalGeneration) -> Mapping[str, torch.Tensor]:
    decoder = model.model.language_model
    named = dict(decoder.named_parameters())
    if any(adapters.is_adapter(name) for name in named):
        return adapters.merged(decoder)
    return {name: parameter.detach() for name, parameter in named.items()}


def _rotary_table(model: Qwen3ASRForConditionalGeneration, positions: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosine and sine of every position, float32 [positions, head width]."""
    embedding = model.model.language_model.rotary_emb
    device = model.lm_head.weight.device
    wanted = torch.arange(positions, device=device)[None]
    cosine, sine = embedding(torch.zeros(1, device=device), wanted)  # the first argument gives dtype and device
    return cosine[0], sine[0]
