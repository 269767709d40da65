"""The small operations of a decoder block: exact on any device; on a GPU the same as one kernel each (triton_*.py).

Uncombined, they take as long as the matrix products between them. torch.compile combines them too, but takes half a
minute first, which is longer than most transcriptions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn.functional import rms_norm, silu

from caspi.inference.engine.weights import BlockWeights, DecoderWeights


@dataclass(frozen=True, slots=True)
class Operations:
    """add_norm(hidden, change or None, norm weight, epsilon): hidden + change, and that normalised; both like hidden.

    place(projected, block, weights, positions, places, cached): normalises and rotates the output of the fused
    projection [tokens, (heads + 2 key heads) * width]; writes keys and values [2, key heads, width] of every token into
    `cached` [positions, 2, key heads, width] at `places`; returns the query [tokens, heads, width] and the keys and
    values [tokens, 2, key heads, width].

    gated(gate_up [tokens, 2 * inner width]): SwiGLU, [tokens, inner width].
    """

    add_norm: Callable[[torch.Tensor, torch.Tensor | None, torch.Tensor, float], tuple[torch.Tensor, torch.Tensor]]
    place: Callable[
        [torch.Tensor, BlockWeights, DecoderWeights, torch.Tensor, torch.Tensor, torch.Tensor],
        tuple[torch.Tensor, torch.Tensor],
    ]
    gated: Callable[[torch.Tensor], torch.Tensor]

    @classmethod
    def on(cls, device: torch.device) -> Operations:
        """The kernels on a GPU, elsewhere the plain operations."""
        if device.type == "cuda":
            from caspi.inference.engine import triton_operations as fused

            return cls(fused.add_norm, fused.place, fused.gated)
        return PLAIN


def _add_norm(
    hidden: torch.Tensor, change: torch.Tensor | None, norm: torch.Tensor, epsilon: float
) -> tuple[torch.Tensor, torch.Tensor]:
    hidden = hidden if change is None else hidden + change
    return hidden, rms_norm(hidden, hidden.shape[-1:], norm, epsilon)


def _place(
    projected: torch.Tensor, block: BlockWeights, weights: DecoderWeights, positions: torch.Tensor,
    places: torch.Tensor, cached: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    heads, key_heads, width = weights.heads, weights.key_heads, weights.head_width
    split = projected.view(len(projected), heads + 2 * key_heads, width)
    cosine, sine = (table[positions][:, None] for table in weights.rotary)  # [tokens, 1, head width]
    # Query and key together: on a CPU the number of operations counts.
    normed = rms_norm(split[:, : heads + key_heads], (width,), None, weights.epsilon) * block.query_key_norm
    rotated = _rotated(normed, cosine, sine)
    keys_values = torch.cat((rotated[:, heads:], split[:, heads + key_heads :]), dim=1)
    keys_values = keys_values.view(len(projected), 2, key_heads, width)
    cached.index_copy_(0, places, keys_values)
    return rotated[:, :heads], keys_values


def _rotated(heads: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> torch.Tensor:
    first, second = heads.float().chunk(2, dim=-1)
    turned = torch.cat((-second, first), dim=-1)
    return torch.addcmul(heads * cosine, turned, sine).to(heads.dtype)


def _gated(gate_up: torch.Tensor) -> torch.Tensor:
    gate, up = gate_up.chunk(2, dim=-1)
    return silu(gate) * up


PLAIN = Operations(_add_norm, _place, _gated)
