"""Variable-length attention over packed sequences: no computation on padding, no loop over utterances.

transformers passes packed tensors and cumulative lengths to an attention function whose name contains `flash`,
both in the audio encoder (8 s windows) and in the decoder. `PACKED` is such a name: on a GPU the function runs torch's
own variable-length kernel, elsewhere it gathers the sequences into a padded batch with an exact mask.
"""

from __future__ import annotations

import functools
import inspect
from typing import Any

import torch
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

PACKED = "caspi_flash_packed"

# Grouped-query attention is automatic in some releases of torch; later ones need an explicit argument.
_grouped_query: Any = {"enable_gqa": True} if "enable_gqa" in inspect.signature(varlen_attn).parameters else {}
_varlen: Any = functools.partial(varlen_attn, **_grouped_query)


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: None,
    *,
    scaling: float,
    cu_seq_lens_q: torch.Tensor,
    max_length_q: int,
    is_causal: bool | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """query [1, heads, tokens, width], key and value [1, key heads, tokens, width], to [1, tokens, heads, width].

    `cu_seq_lens_q` int32 [sequences + 1] are the cumulative lengths. A token attends only to its own sequence,
    and only to its past if the module is causal.
    """
    causal = bool(module.is_causal) if is_causal is None else is_causal
    q, k, v = (tensor[0].transpose(0, 1) for tensor in (query, key, value))  # [tokens, heads, width]
    return packed(q, k, v, cu_seq_lens_q, max_length_q, scaling, causal=causal)[None], None


def packed(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, bounds: torch.Tensor, longest: int, scaling: float, *,
    causal: bool,
) -> torch.Tensor:  # fmt: skip
    """q [tokens, heads, width], k and v [tokens, key heads, width] of packed sequences to [tokens, heads, width].
    bounds int32 [sequences + 1]: cumulative lengths; longest: of a sequence."""
    if q.device.type == "cuda":
        # Under autocast the preceding norms and rotations return fp32, which the kernel does not accept.
        dtype = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else q.dtype
        if dtype in (torch.bfloat16, torch.float16):
            q, k, v = q.to(dtype), k.to(dtype), v.to(dtype)
            return _kernel(q, k, v, bounds, longest, scaling, causal)
    return _padded(q, k, v, bounds, longest, scaling, causal)


def _kernel(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    bounds: torch.Tensor,
    max_length: int,
    scaling: float,
    causal: bool,
) -> torch.Tensor:
    window = (-1, 0) if causal else (-1, -1)
    output: torch.Tensor = _varlen(
        q.contiguous(), k.contiguous(), v.contiguous(), bounds, bounds, max_length, max_length,
        scale=scaling, window_size=window,
    )  # fmt: skip
    return output


def _padded(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    bounds: torch.Tensor,
    max_length: int,
    scaling: float,
    causal: bool,
) -> torch.Tensor:
    """The same as `_kernel` on any device: one call over a batch of sequences padded on the right. The host does not
    wait for the device."""
    starts, lengths = bounds[:-1].long(), (bounds[1:] - bounds[:-1]).long()
    token = torch.arange(len(q), device=q.device)
    sequence = torch.bucketize(token, bounds[1:], right=True)
    position = sequence * max_length + token - starts[sequence]  # position of every token in the padded batch
    offset = torch.arange(max_length, device=q.device)
    is_token = offset < lengths[:, None]  # [sequences, max_length]
    index = torch.where(is_token, starts[:, None] + offset, 0)
    q, k, v = (tensor[index].transpose(1, 2) for tensor in (q, k, v))  # [sequences, heads, max_length, width]
    # Padding comes after every real token, so a causal mask alone hides it.
    mask = None if causal else is_token[:, None, None, :]
    output = scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=causal, scale=scaling, enable_gqa=q.shape[1] != k.shape[1]
    )
    return output.transpose(1, 2).flatten(0, 1)[position]


# No mask is registered: the lengths separate the sequences.
AttentionInterface.register(PACKED, packed_attention)
