"""Attention of one new token of every row over the row's span of the cache.

`over_spans(starts [rows], lengths [rows], scale)` returns a function of query [rows, heads, width] and one block's keys
and values [positions, 2, key heads, width] to [rows, heads, width]. A row attends to the `lengths` positions from
`starts` on, and to no others.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch.nn.functional import scaled_dot_product_attention

Attend = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def over_spans(starts: torch.Tensor, lengths: torch.Tensor, scale: float) -> Attend:
    """The Triton kernel on a GPU, elsewhere `gathered`."""
    if starts.is_cuda:
        from caspi.inference.engine.triton_attention import attend

        return functools.partial(attend, starts=starts, lengths=lengths, scale=scale)
    return gathered(starts, lengths, scale)


def gathered(starts: torch.Tensor, lengths: torch.Tensor, scale: float) -> Attend:
    """On any device, by copying the spans into a padded batch; waits for the device to learn the longest length."""
    longest = int(lengths.max())
    offset = torch.arange(longest, device=starts.device)
    inside = offset < lengths[:, None]
    places = torch.where(inside, starts[:, None] + offset, starts[:, None]).flatten()
    bias = torch.zeros(inside.shape, device=starts.device).masked_fill(~inside, -torch.inf)[:, None, None]

    def attend(query: torch.Tensor, keys_values: torch.Tensor) -> torch.Tensor:
        rows, _, width = query.shape
        # Rows of a matrix are copied several times faster than elements of a tensor with more dimensions.
        copied = keys_values.flatten(1).index_select(0, places).view(rows, longest, 2, -1, width)
        key, value = copied.permute(2, 0, 3, 1, 4)  # [rows, key heads, longest, width] each
        shared = query.reshape(rows, key.shape[1], -1, width)  # the heads that share a key, as if they were positions
        attended = scaled_dot_product_attention(shared, key, value, attn_mask=bias.to(query.dtype), scale=scale)
        return attended.reshape(query.shape)

    return attend
