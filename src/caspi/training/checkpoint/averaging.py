"""Averages the weights of several checkpoints, and interpolates between two models, in float64; tied weights once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from caspi.errors import UsageError
from caspi.model.files import WEIGHTS, copy_model_files, read_weights, write_weights
from caspi.model.groups import stack_of


def average(parts: Sequence[Path], out: Path, weights: Sequence[float] | None = None) -> None:
    """Writes the average of checkpoints of one model into the model folder `out`; weights are relative, equal if None.

    Raises UsageError if they hold different tensors.
    """
    if not parts:
        raise UsageError("no checkpoint to average")
    weights = [1.0] * len(parts) if weights is None else weights
    first = read_weights(parts[0])
    dtypes = {name: tensor.dtype for name, tensor in first.items()}
    total = {name: tensor.double() * weights[0] for name, tensor in first.items()}
    for folder, weight in zip(parts[1:], weights[1:], strict=True):
        tensors = read_weights(folder)
        if tensors.keys() != total.keys():
            raise UsageError(f"{folder} and {parts[0]} are checkpoints of different models")
        for name, tensor in tensors.items():
            total[name] += tensor.double() * weight
            if tensor.dtype == torch.float32:  # trained in one of them, frozen in another
                dtypes[name] = torch.float32
    mean = {name: (tensor / sum(weights)).to(dtypes[name]).contiguous() for name, tensor in total.items()}
    copy_model_files(parts[0], out)
    write_weights(mean, out / WEIGHTS)


def interpolate(after: Path, before: Path, share: float, groups: Mapping[str, float], out: Path) -> None:
    """Writes `share` of the weights of `after` and the rest of `before` into the model folder `out`. groups: other
    shares, by the name of a group of parameters. Raises UsageError if the two hold different tensors."""
    new, old = read_weights(after), read_weights(before)
    if new.keys() != old.keys() or any(new[name].shape != old[name].shape for name in new):
        raise UsageError(f"{after} and {before} are different models: --with takes the one that training started from")
    mixed = {}
    for name, tensor in new.items():
        alpha = groups.get(stack_of(name), share)
        mixed[name] = (alpha * tensor.double() + (1 - alpha) * old[name].double()).to(tensor.dtype).contiguous()
    copy_model_files(after, out)
    write_weights(mixed, out / WEIGHTS)
