"""Weights of several checkpoints averaged in float64, tied weights once."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from caspi.errors import UsageError

WEIGHTS = "model.safetensors"


def read_weights(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a model folder, sharded or not. Raises UsageError."""
    paths = sorted(folder.glob("model*.safetensors"))
    if not paths:
        raise UsageError(f"{folder} holds no model*.safetensors: it is not a checkpoint")
    weights: dict[str, torch.Tensor] = {}
    for path in paths:
        weights.update(load_file(path))
    return weights


def average(parts: Sequence[Path], out: Path, weights: Sequence[float] | None = None) -> None:
    """Writes the average of checkpoints of one model into the model folder `out`; weights are relative, equal if None.

    Raises UsageError where they hold different tensors.
    """
    if not parts:
        raise UsageError("no checkpoint to average")
    weights = [1.0] * len(parts) if weights is None else weights
    first = read_weights(parts[0])
    dtypes = {name: tensor.dtype for name, tensor in first.items()}
    total = {name: tensor.double() * weights[0] for name, tensor in first.items()}
    for folder, weight in zip(parts[1:], weights[1:], strict=True):
        found = read_weights(folder)
        if found.keys() != total.keys():
            raise UsageError(f"{folder} and {parts[0]} are checkpoints of different models")
        for name, tensor in found.items():
            total[name] += tensor.double() * weight
            if tensor.dtype == torch.float32:  # trained in one of them, frozen in another
                dtypes[name] = torch.float32
    mean = {name: (tensor / sum(weights)).to(dtypes[name]).contiguous() for name, tensor in total.items()}
    copy_model_files(parts[0], out)
    write_weights(mean, out / WEIGHTS)


def write_weights(weights: dict[str, torch.Tensor], path: Path) -> None:
    """A file that whoever may read the folder may read: safetensors makes it for its owner alone."""
    save_file(weights, path, metadata={"format": "pt"})
    mask = os.umask(0)
    os.umask(mask)
    path.chmod(0o666 & ~mask)


# What a model folder needs beside its weights; training state stays behind.
MODEL_FILES = (
    "config.json", "generation_config.json", "processor_config.json", "preprocessor_config.json",
    "chat_template.jinja", "chat_template.json", "tokenizer.json", "tokenizer_config.json", "vocab.json",
    "merges.txt", "special_tokens_map.json", "added_tokens.json", "README.md",
)  # fmt: skip


def copy_model_files(source: Path, target: Path) -> None:
    """Configuration, tokenizer and processor, those that are there."""
    for name in MODEL_FILES:
        if (source / name).is_file():
            shutil.copy(source / name, target / name)
