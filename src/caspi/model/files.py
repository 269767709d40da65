"""Which files make a model folder, and its weights read and written."""

from __future__ import annotations

import os
import shutil
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


def model_files(folder: Path) -> list[Path]:
    """The files that make a model, without what training resumes from."""
    patterns = (*MODEL_FILES, "model*.safetensors", "model.safetensors.index.json")
    return sorted({path for pattern in patterns for path in folder.glob(pattern)})
