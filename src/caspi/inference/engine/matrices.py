"""Products with a weight matrix, in 16 or 32 bits or in eight.

In eight bits the inputs are rounded too, each token by its own scale, so that the product runs on eight-bit units (as
vLLM does with W8A8). A GPU older than H100, or a CPU, has none for fp8: there the weights are floats again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn.functional import linear, pad

from caspi.model.eight_bit import LARGEST, EightBitWeight

_FEWEST_ROWS = 17  # of a product of int8 on a GPU
_SMALLEST = 1e-12


@dataclass(frozen=True, slots=True)
class EightBitMatrix:
    """values: int8 or float8_e4m3fn [out, in]; scales: float32 [out]."""

    values: torch.Tensor
    scales: torch.Tensor

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        """[rows, in] to [rows, out], in the dtype of the inputs."""
        rows = len(inputs)
        values, scales = rounded(inputs, self.values.dtype)
        if self.values.dtype != torch.int8:
            product = torch._scaled_mm(  # public since torch 2.12, as nn.functional.scaled_mm
                values, self.values.t(), scales, self.scales[None], out_dtype=torch.bfloat16
            )
            return product.to(inputs.dtype)
        if values.is_cuda and rows < _FEWEST_ROWS:
            values = pad(values, (0, 0, 0, _FEWEST_ROWS - rows))
        product = torch._int_mm(values, self.values.t())[:rows]  # torch has no public name for it
        return scaled(product, scales, self.scales, inputs.dtype)


def rounded(inputs: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """The inputs in eight bits [rows, in], and the scale of each row, float32 [rows, 1]."""
    largest = LARGEST["int8" if dtype == torch.int8 else "fp8"]
    if inputs.is_cuda:
        from caspi.inference.engine import triton_eight_bit

        return triton_eight_bit.rounded(inputs.contiguous(), dtype, largest, _SMALLEST)
    exact = inputs.float()
    scales = exact.abs().amax(dim=1, keepdim=True).clamp(min=_SMALLEST) / largest
    values = (exact / scales).clamp(-largest, largest)
    return (values.round() if dtype == torch.int8 else values).to(dtype), scales


def scaled(
    product: torch.Tensor, row_scales: torch.Tensor, column_scales: torch.Tensor, dtype: torch.dtype
) -> torch.Tensor:
    """int32 [rows, out] times its scales [rows, 1] and [out], in `dtype`."""
    if product.is_cuda:
        from caspi.inference.engine import triton_eight_bit

        return triton_eight_bit.scaled(product, row_scales, column_scales, dtype)
    return (product.float() * row_scales * column_scales).to(dtype)


Matrix = torch.Tensor | EightBitMatrix


def multiply(inputs: torch.Tensor, matrix: Matrix) -> torch.Tensor:
    """[rows, in] to [rows, out]."""
    return linear(inputs, matrix) if isinstance(matrix, torch.Tensor) else matrix(inputs)


def joined(weights: Sequence[EightBitWeight], device: torch.device, dtype: torch.dtype) -> Matrix:
    """One matrix of weights with the same inputs; floats of `dtype` where the device cannot compute with them."""
    values = torch.cat([weight.values.to(device) for weight in weights])
    scales = torch.cat([weight.scales.to(device) for weight in weights])
    if values.dtype == torch.int8 or _computes_fp8(device):
        return EightBitMatrix(values, scales)
    return EightBitWeight(values, scales).float().to(dtype)


def _computes_fp8(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (9, 0)
