"""Checkpoints on disk: complete or invisible, loadable by plain transformers; the best and the last are kept."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import GenerationConfig

from caspi.atomic_output import delete_atomic, sync_to_disk, write_whole
from caspi.audio import Seconds
from caspi.model.aligner import TrainedModel
from caspi.model.loading import LoadedModel
from caspi.training.checkpoint import safetensors_writer
from caspi.training.results import AnyMeasurement, CheckpointResult, measurement_from_json

PREFIX = "checkpoint-"
METRICS = "metrics.json"
PARTIAL = ".partial"
TRAINED = "trained.safetensors"
ADAPTERS = "adapters"  # their description, in the header of that file
OPTIMIZER = "optimizer.safetensors"
Weights = dict[str, torch.Tensor]


def save_model(loaded: TrainedModel, weights: dict[str, torch.Tensor], folder: Path, max_clip_seconds: Seconds) -> None:
    """Writes weights, configuration, tokenizer, processor, chat template and generation settings.
    max_clip_seconds: of the longest training clip, so that programs know how to cut long recordings."""
    config = loaded.model.config
    config.architectures = [loaded.architecture.__name__]  # not of the model, whose class sharding changes
    config.dtype = next(iter(weights.values())).dtype
    config.max_clip_seconds = max_clip_seconds
    if hasattr(config, "longest_clip"):  # the key of version 0.1, if the base model has it
        del config.longest_clip
    config.save_pretrained(folder)
    if isinstance(loaded, LoadedModel):
        GenerationConfig(
            do_sample=False, eos_token_id=loaded.prompt.end, pad_token_id=loaded.prompt.pad, max_new_tokens=512
        ).save_pretrained(folder)
    safetensors_writer.write_safetensors(folder / "model.safetensors", weights)
    loaded.processor.save_pretrained(folder)


def save_trained(folder: Path, raw: Weights, average: Weights, adapters: dict[str, Any]) -> None:
    """Writes what training resumes from if that is not the saved model: adapters, with their description, and the
    weights of which the saved model is the moving average."""
    tensors = {f"raw.{name}": tensor for name, tensor in raw.items()}
    safetensors_writer.write_safetensors(
        folder / TRAINED,
        tensors | {f"average.{name}": tensor for name, tensor in average.items()},
        {ADAPTERS: json.dumps(adapters)},
    )


def save_optimizer(folder: Path, state: dict[str, Any]) -> None:
    """Writes the state of an optimizer whose state is only tensors per parameter."""
    tensors = {f"{number}.{name}": value for number, values in state["state"].items() for name, value in values.items()}
    safetensors_writer.write_safetensors(
        folder / OPTIMIZER, tensors, {"param_groups": json.dumps(state["param_groups"])}
    )


def optimizer_state(folder: Path) -> dict[str, Any]:
    """The state that `save_optimizer` wrote."""
    state: dict[int, dict[str, torch.Tensor]] = {}
    with safe_open(folder / OPTIMIZER, framework="pt") as file:
        for key in file.keys():  # noqa: SIM118, it is not a dictionary
            number, _, name = key.partition(".")
            state.setdefault(int(number), {})[name] = file.get_tensor(key)
        return {"state": state, "param_groups": json.loads(file.metadata()["param_groups"])}


def trained_weights(folder: Path) -> tuple[Weights, Weights]:
    """The trained parameters to resume from, and their moving average if the stage keeps one, by name."""
    if (folder / TRAINED).is_file():
        stored = load_file(folder / TRAINED)
        return _named(stored, "raw."), _named(stored, "average.")
    weights: Weights = {}
    for path in sorted(folder.glob("model*.safetensors")):
        weights.update(load_file(path))
    return weights, {}


def _named(stored: Weights, prefix: str) -> Weights:
    return {name.removeprefix(prefix): tensor for name, tensor in stored.items() if name.startswith(prefix)}


def complete_checkpoints(stage_folder: Path) -> list[Path]:
    """Completely written checkpoints of a stage, oldest first."""
    complete = [path for path in stage_folder.glob(f"{PREFIX}*") if (path / METRICS).is_file()]
    return sorted(complete, key=step_of)


def step_of(checkpoint: Path) -> int:
    """The optimizer step after which a checkpoint was written."""
    return int(checkpoint.name.removeprefix(PREFIX))


def metrics_of(checkpoint: Path) -> dict[str, Any]:
    """The results of the in-training evaluation of a checkpoint."""
    metrics: dict[str, Any] = json.loads((checkpoint / METRICS).read_text())
    return metrics


def result_of(checkpoint: Path) -> CheckpointResult:
    """The result of a checkpoint, with types."""
    return CheckpointResult(checkpoint, step_of(checkpoint), measurement_from_json(metrics_of(checkpoint)))


def add_metrics(checkpoint: Path, measured: AnyMeasurement) -> None:
    """Adds an evaluation to a checkpoint that is already written."""
    write_whole(checkpoint / METRICS, json.dumps(metrics_of(checkpoint) | measured.as_json(), indent=1))


def best_checkpoints(stage_folder: Path, count: int) -> list[Path]:
    """The `count` complete checkpoints with the lowest WER, best first; ties are ranked by loss. Checkpoints
    without an evaluation, because the run was interrupted, are excluded."""
    results = [result_of(path) for path in complete_checkpoints(stage_folder)]
    ranked = [(result.measured.quality, result.path) for result in results if result.measured is not None]
    return [path for _, path in sorted(ranked, key=lambda entry: entry[0])[:count]]


def check_readable(folder: Path) -> None:
    """Reads the headers of the written files: the positions of tensors in weight files, the directories of archives.

    Raises OSError, SafetensorError or RuntimeError if a file is truncated.
    """
    if not list(folder.glob("model*.safetensors")):
        raise OSError(f"{folder} has no weights")
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="pt"):  # compares the header with the file's size
            pass
    for path in (*folder.glob("*.pt"), *folder.glob("optimizer.bin")):
        torch.load(path, map_location="meta", mmap=True, weights_only=True)
    for path in folder.glob("*.json"):
        try:
            json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise OSError(f"{path} is truncated ({error})") from error


def make_visible(staged: Path, final: Path, metrics: dict[str, Any]) -> None:
    """Makes a staged checkpoint visible: writes the metrics last, syncs all files to the disk, then renames the
    folder."""
    (staged / METRICS).write_text(json.dumps(metrics, indent=1))
    for path in staged.iterdir():
        sync_to_disk(path)
    sync_to_disk(staged)
    if final.exists():  # left by a run that was resumed from an earlier step
        delete_atomic(final)
    staged.rename(final)
    sync_to_disk(final.parent)


BEST = "best"


def point_to_best(run: Path, model: Path) -> None:
    """Points the link `best` in a run's folder to the model to use; replaces the link atomically."""
    link, partial = run / BEST, run / f".{BEST}.partial"
    partial.unlink(missing_ok=True)
    if link.is_dir() and not link.is_symlink():  # a copied run, in which links became folders
        delete_atomic(link)
    partial.symlink_to(os.path.relpath(model.resolve(), run.resolve()))
    partial.replace(link)


def prune_checkpoints(stage_folder: Path, keep: int) -> None:
    """Deletes all checkpoints but the best `keep` and the last, and what remains of an interrupted deletion."""
    for path in stage_folder.glob(f".{PREFIX}*.removed"):
        shutil.rmtree(path, ignore_errors=True)
    last = complete_checkpoints(stage_folder)[-1:]
    keep_paths = {*best_checkpoints(stage_folder, keep), *last}
    for path in complete_checkpoints(stage_folder):
        if path not in keep_paths:
            delete_atomic(path)
