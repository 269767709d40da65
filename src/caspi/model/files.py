"""The files of a model folder; reads and writes its weights."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from caspi.errors import UsageError
from caspi.model.eight_bit import separate
from caspi.reporting import report

WEIGHTS = "model.safetensors"


def read_weights(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a model folder, sharded or not. Raises UsageError if there are none, or if they are stored in
    eight bits, from which only decoding starts."""
    weights = read_tensors(folder)
    if separate(weights)[1]:
        raise UsageError(f"{folder} is an export in eight bits: use the model that it was exported from")
    return weights


def read_tensors(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a model folder as they are, sharded or not. Raises UsageError."""
    paths = sorted(folder.glob("model*.safetensors"))
    if not paths:
        raise UsageError(f"{folder} holds no model*.safetensors: it is not a checkpoint")
    weights: dict[str, torch.Tensor] = {}
    for path in paths:
        weights.update(load_file(path))
    return weights


def write_weights(weights: dict[str, torch.Tensor], path: Path) -> None:
    """Writes weights with the usual file permissions: safetensors makes files readable only by their owner."""
    save_file(weights, path, metadata={"format": "pt"})
    mask = os.umask(0)
    os.umask(mask)
    path.chmod(0o666 & ~mask)


# The files of a model folder besides its weights; training state is not copied.
MODEL_FILES = (
    "config.json", "generation_config.json", "processor_config.json", "preprocessor_config.json",
    "chat_template.jinja", "chat_template.json", "tokenizer.json", "tokenizer_config.json", "vocab.json",
    "merges.txt", "special_tokens_map.json", "added_tokens.json", "README.md",
)  # fmt: skip


def copy_model_files(source: Path, target: Path) -> None:
    """Copies configuration, tokenizer and processor files, those that exist."""
    for name in MODEL_FILES:
        if (source / name).is_file():
            shutil.copy(source / name, target / name)


def max_clip_seconds(config: Mapping[str, Any]) -> float | None:
    """Seconds of the longest training clip, from the content of a config.json; None if the model does not state it.
    Version 0.1 named the key `longest_clip`."""
    return config.get("max_clip_seconds", config.get("longest_clip"))


# What loading a model reads, whatever its layout.
_LOADED = ("model*.safetensors*", "*config.json", "tokenizer*", "vocab*", "merges*", "*tokens*.json", "chat_template*")


def loaded_files(folder: Path) -> list[Path]:
    """The files of a model folder that loading reads: weights, configuration, tokenizer and processor."""
    return sorted({path for pattern in _LOADED for path in folder.glob(pattern) if path.is_file()})


def model_fingerprint(folder: Path) -> str:
    """SHA-256 of a model folder's weights, configuration, tokenizer and processor."""
    listing = "".join(f"{path.name} {report.fingerprint(path)}\n" for path in loaded_files(folder))
    return hashlib.sha256(listing.encode()).hexdigest()


def model_files(folder: Path) -> list[Path]:
    """The files of a model, without the state that training resumes from."""
    patterns = (*MODEL_FILES, "model*.safetensors", "model.safetensors.index.json")
    return sorted({path for pattern in patterns for path in folder.glob(pattern)})
