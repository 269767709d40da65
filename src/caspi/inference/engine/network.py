"""The decoder's two passes: over prompts packed one after another, and over one token of every row.

Both write keys and values into a cache of positions; a sequence has a contiguous span of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn.functional import linear, rms_norm, silu

from caspi.inference.engine.attention import over_spans
from caspi.inference.engine.weights import DecoderWeights
from caspi.model.attention import packed


@dataclass(frozen=True, slots=True)
class Cache:
    """keys_values: of every block, [blocks, positions, 2, key heads, head width]."""

    keys_values: torch.Tensor

    @classmethod
    def of(cls, weights: DecoderWeights, positions: int) -> Cache:
        """Zeros, because a masked position must not hold NaN."""
        return cls(
            weights.embedding.new_zeros(len(weights.blocks), positions, 2, weights.key_heads, weights.head_width)
        )

    @staticmethod
    def bytes_per_position(weights: DecoderWeights) -> int:
        """Of all blocks, keys and values."""
        numbers = 2 * len(weights.blocks) * weights.key_heads * weights.head_width
        return numbers * weights.embedding.element_size()


@dataclass(frozen=True, slots=True)
class PackedPrompts:
    """Prompts one after another. ids, positions (in the sequence), places (in the cache): int64 [tokens]; audio_at:
    int64 [audio tokens]; bounds: int32 [prompts + 1]; last: int64 [prompts]; longest: tokens."""

    ids: torch.Tensor
    positions: torch.Tensor
    places: torch.Tensor
    audio_at: torch.Tensor
    bounds: torch.Tensor
    last: torch.Tensor
    longest: int


@dataclass(frozen=True, slots=True)
class Network:
    """The decoder with the functions that compute its blocks before and after attention, plain or compiled."""

    weights: DecoderWeights
    before_attention: Callable[..., tuple[torch.Tensor, torch.Tensor]]
    after_attention: Callable[..., torch.Tensor]

    @classmethod
    def of(cls, weights: DecoderWeights, *, compiled: bool = False) -> Network:
        """compiled: by torch.compile, which makes a few kernels of all the small operations of a block."""
        if not compiled:
            return cls(weights, _before_attention, _after_attention)
        return cls(
            weights, torch.compile(_before_attention, dynamic=True), torch.compile(_after_attention, dynamic=True)
        )

    def prompt_pass(self, cache: Cache, prompts: PackedPrompts, audio: torch.Tensor) -> torch.Tensor:
        """Fills the cache; returns the logits after each prompt, [prompts, vocabulary]. audio: embeddings of all audio
        tokens, [audio tokens, width]."""
        weights = self.weights
        hidden = weights.embedding[prompts.ids].index_copy(0, prompts.audio_at, audio.to(weights.embedding.dtype))
        scale = weights.head_width**-0.5

        def attention(query: torch.Tensor, key_value: torch.Tensor, number: int) -> torch.Tensor:
            cache.keys_values[number].index_copy_(0, prompts.places, key_value)
            key, value = key_value.unbind(1)
            return packed(query, key, value, prompts.bounds, prompts.longest, scale, causal=True)

        return self._logits(self._blocks(hidden, prompts.positions, attention)[prompts.last])

    def step_pass(
        self, cache: Cache, tokens: torch.Tensor, starts: torch.Tensor, lengths: torch.Tensor
    ) -> torch.Tensor:
        """One token of every row, [rows]: logits of the next, [rows, vocabulary]. starts, lengths: int64 [rows], the
        span of each row and how many of its positions are filled; the token takes the next."""
        places = starts + lengths
        attend = over_spans(starts, lengths + 1, self.weights.head_width**-0.5)

        def attention(query: torch.Tensor, key_value: torch.Tensor, number: int) -> torch.Tensor:
            keys_values = cache.keys_values[number]
            keys_values.index_copy_(0, places, key_value)
            return attend(query, keys_values)

        return self._logits(self._blocks(self.weights.embedding[tokens], lengths, attention))

    def _blocks(self, hidden: torch.Tensor, positions: torch.Tensor, attention: _Attention) -> torch.Tensor:
        weights = self.weights
        cosine, sine = (table[positions][:, None] for table in weights.rotary)  # [tokens, 1, head width]
        for number, block in enumerate(weights.blocks):
            query, key_value = self.before_attention(
                hidden, block.input_norm, block.query_key_value, block.query_norm, block.key_norm, cosine, sine,
                weights.epsilon, weights.heads, weights.key_heads,
            )  # fmt: skip
            hidden = self.after_attention(
                hidden, attention(query, key_value, number), block.output, block.mlp_norm, block.gate_up, block.down,
                weights.epsilon,
            )  # fmt: skip
        return hidden

    def _logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return linear(_norm(hidden, self.weights.norm, self.weights.epsilon), self.weights.head)


# query [tokens, heads, width], keys and values [tokens, 2, key heads, width], number of the block; returns like query
_Attention = Callable[[torch.Tensor, torch.Tensor, int], torch.Tensor]


def _norm(hidden: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
    return rms_norm(hidden, hidden.shape[-1:], weight, epsilon)


def _before_attention(
    hidden: torch.Tensor, norm: torch.Tensor, query_key_value: torch.Tensor, query_norm: torch.Tensor,
    key_norm: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor, epsilon: float, heads: int, key_heads: int,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """Hidden states [tokens, width] to rotated query [tokens, heads, head width], and key and value
    [tokens, 2, key heads, head width]."""
    projected = linear(_norm(hidden, norm, epsilon), query_key_value).view(len(hidden), heads + 2 * key_heads, -1)
    query, key, value = torch.split(projected, [heads, key_heads, key_heads], dim=1)
    query, key = _norm(query, query_norm, epsilon), _norm(key, key_norm, epsilon)
    return _rotated(query, cosine, sine), torch.stack((_rotated(key, cosine, sine), value), dim=1)


def _rotated(heads: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> torch.Tensor:
    first, second = heads.float().chunk(2, dim=-1)
    turned = torch.cat((-second, first), dim=-1)
    return (heads * cosine + turned * sine).to(heads.dtype)


def _after_attention(
    hidden: torch.Tensor, attended: torch.Tensor, output: torch.Tensor, norm: torch.Tensor, gate_up: torch.Tensor,
    down: torch.Tensor, epsilon: float,
) -> torch.Tensor:  # fmt: skip
    hidden = hidden + linear(attended.flatten(1), output)
    gate, up = linear(_norm(hidden, norm, epsilon), gate_up).chunk(2, -1)
    return hidden + linear(silu(gate) * up, down)
