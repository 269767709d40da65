"""Our writer, tested with the library that reads its files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file

from caspi.training.checkpoint import safetensors_writer

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.uint8, torch.bool]
TENSORS = st.dictionaries(
    st.text(min_size=1, max_size=8).filter(lambda name: name != "__metadata__"),
    st.tuples(st.sampled_from(DTYPES), st.lists(st.integers(0, 5), max_size=3), st.booleans()),
    max_size=6,
)


@given(TENSORS, st.dictionaries(st.text(min_size=1), st.text(), max_size=2))
def test_the_library_reads_the_written_files(
    tmp_path_factory: pytest.TempPathFactory,
    wanted: dict[str, tuple],
    metadata: dict[str, str],  # type: ignore[type-arg]
) -> None:
    tensors = {}
    for name, (dtype, shape, transposed) in wanted.items():
        tensor = (torch.randn(shape) * 50).to(dtype)
        tensors[name] = tensor.T if transposed and tensor.dim() == 2 else tensor
    path = tmp_path_factory.getbasetemp() / "some.safetensors"
    safetensors_writer.write_safetensors(path, tensors, metadata)
    found = load_file(path)
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert found[name].shape == tensor.shape
        assert torch.equal(found[name], tensor)
    with safe_open(path, framework="pt") as file:
        assert file.metadata() == {"format": "pt", **metadata}


def test_tensors_larger_than_the_buffer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safetensors_writer, "_BUFFER_BYTES", 1000)
    tensors = {"long": torch.randn(777), "short": torch.randn(3)}
    safetensors_writer.write_safetensors(tmp_path / "some.safetensors", tensors)
    assert all(torch.equal(value, tensors[name]) for name, value in load_file(tmp_path / "some.safetensors").items())
