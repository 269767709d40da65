"""The kernel of attention.over_spans on a GPU: every key and value is read once for all heads that share it."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

_POSITIONS = 64  # read at a time
_HEADS_AT_LEAST = 16  # of a matrix product; rows of heads that are not there cost nothing beside the reading
_WARPS, _STAGES = 4, 3
_LOG2_E = 1.4426950408889634


@triton.jit  # type: ignore[untyped-decorator]
def _kernel(  # type: ignore[no-untyped-def]
    query,
    keys_values,
    starts,
    lengths,
    out,
    scale,
    HEADS: tl.constexpr,
    KEY_HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
    POSITIONS: tl.constexpr,
    ROWS_OF_HEADS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    row, key_head = tl.program_id(0), tl.program_id(1)
    start, length = tl.load(starts + row), tl.load(lengths + row)
    column = tl.arange(0, WIDTH)
    shared: tl.constexpr = HEADS // KEY_HEADS
    number = tl.arange(0, ROWS_OF_HEADS)
    is_head = number < shared
    head = (row * HEADS + key_head * shared + number)[:, None] * WIDTH + column[None, :]
    q = tl.load(query + head, mask=is_head[:, None], other=0.0)
    best = tl.full([ROWS_OF_HEADS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS_OF_HEADS], tl.float32)
    summed = tl.zeros([ROWS_OF_HEADS, WIDTH], tl.float32)
    first_key = (start * 2 * KEY_HEADS + key_head) * WIDTH
    for first in range(0, length, POSITIONS):
        position = first + tl.arange(0, POSITIONS)
        inside = position < length
        place = first_key + position[:, None] * (2 * KEY_HEADS * WIDTH) + column[None, :]
        key = tl.load(keys_values + place, mask=inside[:, None], other=0.0)
        value = tl.load(keys_values + KEY_HEADS * WIDTH + place, mask=inside[:, None], other=0.0)
        score = tl.dot(q, tl.trans(key), input_precision=PRECISION) * scale
        score = tl.where(inside[None, :], score, float("-inf"))
        new_best = tl.maximum(best, tl.max(score, axis=1))
        share = tl.exp2(score - new_best[:, None])
        kept = tl.exp2(best - new_best)
        total = total * kept + tl.sum(share, axis=1)
        summed = summed * kept[:, None] + tl.dot(share.to(value.dtype), value, input_precision=PRECISION)
        best = new_best
    result = summed / total[:, None]
    tl.store(out + head, result.to(out.dtype.element_ty), mask=is_head[:, None])


def attend(
    query: torch.Tensor, keys_values: torch.Tensor, starts: torch.Tensor, lengths: torch.Tensor, scale: float
) -> torch.Tensor:
    """See attention.py; the width of a head must be a power of two."""
    rows, heads, width = query.shape
    key_heads = keys_values.shape[2]
    out = torch.empty_like(query)
    launch: Any = _kernel[(rows, key_heads)]
    launch(
        query.contiguous(), keys_values, starts, lengths, out, scale * _LOG2_E, heads, key_heads, width, _POSITIONS,
        max(_HEADS_AT_LEAST, triton.next_power_of_2(heads // key_heads)),
        "ieee" if query.dtype == torch.float32 else "tf32", num_warps=_WARPS, num_stages=_STAGES,
    )  # fmt: skip
    return out
