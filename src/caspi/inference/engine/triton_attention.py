"""The kernel of attention.attend on a GPU: every key and value is read once for all heads that share it."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

_POSITIONS = 32  # read at a time
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
    SHARED: tl.constexpr,
    WIDTH: tl.constexpr,
    POSITIONS: tl.constexpr,
):
    row, key_head = tl.program_id(0), tl.program_id(1)
    start, length = tl.load(starts + row), tl.load(lengths + row)
    column = tl.arange(0, WIDTH)
    head = row * HEADS + key_head * SHARED + tl.arange(0, SHARED)
    q = tl.load(query + head[:, None] * WIDTH + column[None, :]).to(tl.float32) * scale
    best = tl.full([SHARED], float("-inf"), tl.float32)
    total = tl.zeros([SHARED], tl.float32)
    summed = tl.zeros([SHARED, WIDTH], tl.float32)
    for first in range(0, length, POSITIONS):
        position = first + tl.arange(0, POSITIONS)
        inside = position < length
        place = ((start + position) * 2 * KEY_HEADS + key_head)[:, None] * WIDTH + column[None, :]
        key = tl.load(keys_values + place, mask=inside[:, None], other=0.0).to(tl.float32)
        value = tl.load(keys_values + KEY_HEADS * WIDTH + place, mask=inside[:, None], other=0.0).to(tl.float32)
        score = tl.sum(q[:, None, :] * key[None, :, :], axis=2)
        score = tl.where(inside[None, :], score, float("-inf"))
        new_best = tl.maximum(best, tl.max(score, axis=1))
        share = tl.exp2(score - new_best[:, None])
        kept = tl.exp2(best - new_best)
        total = total * kept + tl.sum(share, axis=1)
        summed = summed * kept[:, None] + tl.sum(share[:, :, None] * value[None, :, :], axis=1)
        best = new_best
    result = summed / total[:, None]
    tl.store(out + head[:, None] * WIDTH + column[None, :], result.to(out.dtype.element_ty))


def attend(
    query: torch.Tensor, keys_values: torch.Tensor, starts: torch.Tensor, lengths: torch.Tensor, scale: float
) -> torch.Tensor:
    """See attention.py; the heads that share a key head must be a power of two."""
    rows, heads, width = query.shape
    key_heads = keys_values.shape[2]
    out = torch.empty_like(query)
    launch: Any = _kernel[(rows, key_heads)]
    launch(
        query.contiguous(), keys_values, starts, lengths, out, scale * _LOG2_E,
        heads, key_heads, heads // key_heads, width, _POSITIONS,
    )  # fmt: skip
    return out
