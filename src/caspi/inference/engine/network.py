"""The decoder's two passes: over prompts packed one after another, and over one token of every row.

Both write keys and values into a cache of positions; a sequence has a contiguous span of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn.functional import linear

from caspi.inference.engine.attention import Attend, gathered, over_spans
from caspi.inference.engine.matrices import multiply
from caspi.inference.engine.operations import PLAIN, Operations
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
    """The decoder: its weights, and how its small operations and the attention of steps are computed."""

    weights: DecoderWeights
    operations: Operations
    attention: Callable[[torch.Tensor, torch.Tensor, float], Attend]

    @classmethod
    def of(cls, weights: DecoderWeights, *, kernels: bool = True) -> Network:
        """With the kernels for the weights' device, or with plain operations."""
        if kernels:
            return cls(weights, Operations.on(weights.embedding.device), over_spans)
        return cls(weights, PLAIN, gathered)

    def prompt_pass(self, cache: Cache, prompts: PackedPrompts, audio: torch.Tensor) -> torch.Tensor:
        """Fills the cache; returns the logits after each prompt, [prompts, vocabulary]. audio: embeddings of all audio
        tokens, [audio tokens, width]."""
        weights = self.weights
        hidden = weights.embedding[prompts.ids].index_copy(0, prompts.audio_at, audio.to(weights.embedding.dtype))
        scale = weights.head_width**-0.5

        def attention(query: torch.Tensor, keys_values: torch.Tensor, number: int) -> torch.Tensor:
            key, value = keys_values.unbind(1)
            return packed(query, key, value, prompts.bounds, prompts.longest, scale, causal=True)

        normed = self._blocks(hidden, prompts.positions, prompts.places, cache, attention)
        return linear(normed[prompts.last], weights.head)

    def step_pass(
        self, cache: Cache, tokens: torch.Tensor, starts: torch.Tensor, lengths: torch.Tensor
    ) -> torch.Tensor:
        """One token of every row, [rows]: logits of the next, [rows, vocabulary]. starts, lengths: int64 [rows], the
        span of each row and how many of its positions are filled; the token takes the next."""
        attend = self.attention(starts, lengths + 1, self.weights.head_width**-0.5)

        def attention(query: torch.Tensor, _: torch.Tensor, number: int) -> torch.Tensor:
            return attend(query, cache.keys_values[number])

        hidden = self.weights.embedding[tokens]
        return linear(self._blocks(hidden, lengths, starts + lengths, cache, attention), self.weights.head)

    def _blocks(
        self, hidden: torch.Tensor, positions: torch.Tensor, places: torch.Tensor, cache: Cache, attention: _Attention
    ) -> torch.Tensor:
        """Hidden states [tokens, width] through all blocks, normalised for the head."""
        weights, operations = self.weights, self.operations
        change: torch.Tensor | None = None
        for number, block in enumerate(weights.blocks):
            hidden, normed = operations.add_norm(hidden, change, block.input_norm, weights.epsilon)
            projected = multiply(normed, block.query_key_value)
            query, keys_values = operations.place(
                projected, block, weights, positions, places, cache.keys_values[number]
            )
            change = multiply(attention(query, keys_values, number).flatten(1), block.output)
            hidden, normed = operations.add_norm(hidden, change, block.mlp_norm, weights.epsilon)
            change = multiply(operations.gated(multiply(normed, block.gate_up)), block.down)
        return operations.add_norm(hidden, change, weights.norm, weights.epsilon)[1]


# query [tokens, heads, width], keys and values [tokens, 2, key heads, width], number of the block; returns like query
_Attention = Callable[[torch.Tensor, torch.Tensor, int], torch.Tensor]
