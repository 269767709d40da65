"""The operations of operations.py on a GPU, one kernel each. Sums and roots are in fp32; what plain operations would
store is rounded in the same places."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from caspi.inference.engine.weights import BlockWeights, DecoderWeights

_COLUMNS = 1024  # of the gate that one program computes


@triton.jit  # type: ignore[untyped-decorator]
def _add_norm_kernel(  # type: ignore[no-untyped-def]
    hidden, change, norm, summed, normed, width, epsilon, HAS_CHANGE: tl.constexpr, COLUMNS: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, COLUMNS)
    inside = column < width
    place = row * width + column
    value = tl.load(hidden + place, mask=inside, other=0.0)
    if HAS_CHANGE:
        value = (value.to(tl.float32) + tl.load(change + place, mask=inside, other=0.0).to(tl.float32)).to(value.dtype)
        tl.store(summed + place, value, mask=inside)
    exact = value.to(tl.float32)
    root = tl.rsqrt(tl.sum(exact * exact, axis=0) / width + epsilon)
    weight = tl.load(norm + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(normed + place, (exact * root * weight).to(value.dtype), mask=inside)


def add_norm(
    hidden: torch.Tensor, change: torch.Tensor | None, norm: torch.Tensor, epsilon: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """See operations.Operations."""
    rows, width = hidden.shape
    summed, normed = hidden if change is None else torch.empty_like(hidden), torch.empty_like(hidden)
    launch: Any = _add_norm_kernel[(rows,)]
    launch(
        hidden, hidden if change is None else change, norm, summed, normed, width, epsilon,
        change is not None, triton.next_power_of_2(width),
    )  # fmt: skip
    return summed, normed


@triton.jit  # type: ignore[untyped-decorator]
def _place_kernel(  # type: ignore[no-untyped-def]
    projected,
    query_norm,
    key_norm,
    cosine,
    sine,
    positions,
    places,
    query,
    keys_values,
    cached,
    epsilon,
    HEADS: tl.constexpr,
    KEY_HEADS: tl.constexpr,
    ROWS_OF_HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64)
    half: tl.constexpr = WIDTH // 2
    column = tl.arange(0, half)
    head = tl.arange(0, ROWS_OF_HEADS)
    is_query = head < HEADS
    is_rotated = head < HEADS + KEY_HEADS
    is_head = head < HEADS + 2 * KEY_HEADS
    place = projected + (token * (HEADS + 2 * KEY_HEADS) + head)[:, None] * WIDTH + column[None, :]
    first = tl.load(place, mask=is_head[:, None], other=0.0)
    second = tl.load(place + half, mask=is_head[:, None], other=0.0)
    dtype = first.dtype
    a, b = first.to(tl.float32), second.to(tl.float32)
    root = tl.rsqrt((tl.sum(a * a, axis=1) + tl.sum(b * b, axis=1)) / WIDTH + epsilon)[:, None]
    weight_a = tl.where(is_query[:, None], tl.load(query_norm + column)[None, :], tl.load(key_norm + column)[None, :])
    weight_b = tl.where(
        is_query[:, None], tl.load(query_norm + half + column)[None, :], tl.load(key_norm + half + column)[None, :]
    )
    a = (a * root * weight_a.to(tl.float32)).to(dtype).to(tl.float32)
    b = (b * root * weight_b.to(tl.float32)).to(dtype).to(tl.float32)
    position = tl.load(positions + token)
    cos = tl.load(cosine + position * WIDTH + column)[None, :]  # both halves have the same angles
    sin = tl.load(sine + position * WIDTH + column)[None, :]
    first = tl.where(is_rotated[:, None], (a * cos - b * sin).to(dtype), first)
    second = tl.where(is_rotated[:, None], (b * cos + a * sin).to(dtype), second)
    at = query + (token * HEADS + head)[:, None] * WIDTH + column[None, :]
    tl.store(at, first, mask=is_query[:, None])
    tl.store(at + half, second, mask=is_query[:, None])
    is_cached = is_head & (head >= HEADS)
    offset = (head - HEADS)[:, None] * WIDTH + column[None, :]
    at = keys_values + token * 2 * KEY_HEADS * WIDTH + offset
    tl.store(at, first, mask=is_cached[:, None])
    tl.store(at + half, second, mask=is_cached[:, None])
    at = cached + tl.load(places + token) * 2 * KEY_HEADS * WIDTH + offset
    tl.store(at, first, mask=is_cached[:, None])
    tl.store(at + half, second, mask=is_cached[:, None])


def place(
    projected: torch.Tensor, block: BlockWeights, weights: DecoderWeights, positions: torch.Tensor,
    places: torch.Tensor, cached: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """See operations.Operations; the width of a head must be a power of two."""
    tokens, heads, key_heads, width = len(projected), weights.heads, weights.key_heads, weights.head_width
    query = projected.new_empty(tokens, heads, width)
    keys_values = projected.new_empty(tokens, 2, key_heads, width)
    launch: Any = _place_kernel[(tokens,)]
    launch(
        projected, block.query_key_norm, block.query_key_norm[heads], *weights.rotary, positions, places, query,
        keys_values, cached, weights.epsilon, heads, key_heads, triton.next_power_of_2(heads + 2 * key_heads), width,
    )  # fmt: skip
    return query, keys_values


@triton.jit  # type: ignore[untyped-decorator]
def _gated_kernel(gate_up, out, width, COLUMNS: tl.constexpr):  # type: ignore[no-untyped-def]
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = column < width
    gate = tl.load(gate_up + row * 2 * width + column, mask=inside, other=0.0)
    up = tl.load(gate_up + row * 2 * width + width + column, mask=inside, other=0.0)
    exact = gate.to(tl.float32)
    activated = (exact * tl.sigmoid(exact)).to(gate.dtype).to(tl.float32)
    tl.store(out + row * width + column, (activated * up.to(tl.float32)).to(gate.dtype), mask=inside)


def gated(gate_up: torch.Tensor) -> torch.Tensor:
    """See operations.Operations."""
    rows, width = len(gate_up), gate_up.shape[1] // 2
    out = gate_up.new_empty(rows, width)
    launch: Any = _gated_kernel[(rows, triton.cdiv(width, _COLUMNS))]
    launch(gate_up, out, width, _COLUMNS)
    return out
