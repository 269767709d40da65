"""Writes safetensors files of a checkpoint as fast as the disk allows: a preempted machine stops after about thirty
seconds, and a checkpoint of the released model has 24 GB. The library first copies every tensor into new memory, which
alone takes longer than writing to the disk (docs/log/2026-11-27.md)."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import torch

_TYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
    torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
_BUFFER_BYTES = 64 * 2**20


def write_safetensors(
    path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Writes a file that safetensors reads (its README, "Format"): the header's length, the header, the bytes in
    order."""
    header: dict[str, object] = {"__metadata__": {"format": "pt", **(metadata or {})}}
    end = 0
    # As in the library: wide types first, so that every tensor starts at a multiple of its element size.
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0]))
    for name, tensor in ordered:
        start, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _TYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    on_gpu = any(tensor.is_cuda for tensor in tensors.values())
    buffer = torch.empty(_BUFFER_BYTES, dtype=torch.uint8, pin_memory=on_gpu)
    with path.open("wb", buffering=0) as file:
        _write_all(file.fileno(), memoryview(len(text).to_bytes(8, "little") + text))
        for _, tensor in ordered:
            content = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
            for start in range(0, len(content), _BUFFER_BYTES):
                part = content[start : start + _BUFFER_BYTES]
                _write_all(file.fileno(), (buffer[: len(part)].copy_(part) if part.is_cuda else part).numpy().data)


def _write_all(file: int, data: memoryview) -> None:
    """Writes all data, and tells the kernel that it is not read again, so that flushing to the disk starts."""
    start, size = os.lseek(file, 0, os.SEEK_CUR), len(data)
    while data:
        data = data[os.write(file, data) :]
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(file, start, size, os.POSIX_FADV_DONTNEED)
