"""What surrounds a product in eight bits on a GPU, one kernel each: the inputs rounded by row, and the product of whole
numbers scaled. As plain operations (matrices.py) they took longer than the products."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

_COLUMNS = 1024  # of the product that one program scales
_HALVES: tl.constexpr = tl.constexpr(12582912.0)  # 1.5 * 2**23: fp32 has no fractions there, so that a sum rounds


@triton.jit  # type: ignore[untyped-decorator]
def _rounded_kernel(  # type: ignore[no-untyped-def]
    inputs, values, scales, width, LARGEST: tl.constexpr, SMALLEST: tl.constexpr, WHOLE: tl.constexpr,
    COLUMNS: tl.constexpr
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, COLUMNS)
    inside = column < width
    exact = tl.load(inputs + row * width + column, mask=inside, other=0.0).to(tl.float32)
    scale = tl.math.div_rn(tl.maximum(tl.max(tl.abs(exact), axis=0), SMALLEST), LARGEST)
    tl.store(scales + row, scale)
    scaled = tl.minimum(tl.maximum(tl.math.div_rn(exact, scale), -LARGEST), LARGEST)
    if WHOLE:
        scaled = (scaled + _HALVES) - _HALVES
    tl.store(values + row * width + column, scaled.to(values.dtype.element_ty), mask=inside)


def rounded(
    inputs: torch.Tensor, dtype: torch.dtype, largest: float, smallest: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Values of `dtype` [rows, in], at most `largest`, and their scales, float32 [rows, 1], at least
    `smallest` / `largest`."""
    rows, width = inputs.shape
    values = torch.empty_like(inputs, dtype=dtype)
    scales = inputs.new_empty(rows, 1, dtype=torch.float32)
    launch: Any = _rounded_kernel[(rows,)]
    launch(inputs, values, scales, width, largest, smallest, dtype == torch.int8, triton.next_power_of_2(width))
    return values, scales


@triton.jit  # type: ignore[untyped-decorator]
def _scaled_kernel(  # type: ignore[no-untyped-def]
    product, row_scales, column_scales, out, width, COLUMNS: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = column < width
    whole = tl.load(product + row * width + column, mask=inside, other=0).to(tl.float32)
    scaled = whole * tl.load(row_scales + row) * tl.load(column_scales + column, mask=inside, other=0.0)
    tl.store(out + row * width + column, scaled.to(out.dtype.element_ty), mask=inside)


def scaled(
    product: torch.Tensor, row_scales: torch.Tensor, column_scales: torch.Tensor, dtype: torch.dtype
) -> torch.Tensor:
    """int32 [rows, out] times its scales [rows, 1] and [out], in `dtype`."""
    rows, width = product.shape
    out = torch.empty_like(product, dtype=dtype)
    launch: Any = _scaled_kernel[(rows, triton.cdiv(width, _COLUMNS))]
    launch(product, row_scales, column_scales, out, width, _COLUMNS)
    return out
