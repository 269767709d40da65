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
from transformers import GenerationConfig, Qwen3ASRForConditionalGeneration

from caspi.atomic_output import delete_atomic, sync_to_disk, write_whole
from caspi.audio import Seconds
from caspi.model.loading import LoadedModel
from caspi.training.checkpoint import safetensors_writer
from caspi.training.results import CheckpointResult, Measurement

PREFIX = "checkpoint-"
METRICS = "metrics.json"
PARTIAL = ".partial"
TRAINED = "trained.safetensors"
OPTIMIZER = "optimizer.safetensors"
Weights = dict[str, torch.Tensor]


def save_model(loaded: LoadedModel, weights: dict[str, torch.Tensor], folder: Path, longest: Seconds) -> None:
    """Writes weights, configuration, tokenizer, processor, chat template and generation settings. longest: seconds of
    the longest training clip, so that programs know how to cut long recordings."""
    prompt = loaded.prompt
    config = loaded.model.config
    config.architectures = [Qwen3ASRForConditionalGeneration.__name__]
    config.dtype = next(iter(weights.values())).dtype
    config.longest_clip = longest
    config.save_pretrained(folder)
    GenerationConfig(
        do_sample=False, eos_token_id=prompt.end, pad_token_id=prompt.pad, max_new_tokens=512
    ).save_pretrained(folder)
    safetensors_writer.write_safetensors(folder / "model.safetensors", weights)
    loaded.processor.save_pretrained(folder)


def save_trained(folder: Path, raw: Weights, average: Weights) -> None:
    """Writes what training resumes from if that is not the model's own weights: adapters, and the weights behind a
    moving average."""
    kept = {f"raw.{name}": tensor for name, tensor in raw.items()}
    safetensors_writer.write_safetensors(
        folder / TRAINED, kept | {f"average.{name}": tensor for name, tensor in average.items()}
    )


def save_optimizer(folder: Path, state: dict[str, Any]) -> None:
    """Writes the state of an optimizer whose state is only tensors per parameter."""
    kept = {f"{number}.{name}": value for number, of in state["state"].items() for name, value in of.items()}
    safetensors_writer.write_safetensors(folder / OPTIMIZER, kept, {"param_groups": json.dumps(state["param_groups"])})


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
    found = [path for path in stage_folder.glob(f"{PREFIX}*") if (path / METRICS).is_file()]
    return sorted(found, key=step_of)


def step_of(checkpoint: Path) -> int:
    """The optimizer step after which a checkpoint was written."""
    return int(checkpoint.name.removeprefix(PREFIX))


def metrics_of(checkpoint: Path) -> dict[str, Any]:
    """The results of the in-training evaluation of a checkpoint."""
    metrics: dict[str, Any] = json.loads((checkpoint / METRICS).read_text())
    return metrics


def result_of(checkpoint: Path) -> CheckpointResult:
    """The same, with types."""
    return CheckpointResult(checkpoint, step_of(checkpoint), Measurement.from_json(metrics_of(checkpoint)))


def add_metrics(checkpoint: Path, measured: Measurement) -> None:
    """Adds what was measured on a checkpoint after it was written."""
    write_whole(checkpoint / METRICS, json.dumps(metrics_of(checkpoint) | measured.as_json(), indent=1))


def best_checkpoints(stage_folder: Path, count: int) -> list[Path]:
    """The `count` complete checkpoints with the lowest WER, best first; equals by loss. One that was not
    measured, because the run was asked to end, is none of them."""
    found = [result_of(path) for path in complete_checkpoints(stage_folder)]
    measured = [(one.measured.quality, one.path) for one in found if one.measured is not None]
    return [path for _, path in sorted(measured, key=lambda one: one[0])[:count]]


def check_readable(folder: Path) -> None:
    """Reads back the headers of what was written: every tensor's place in the weight files, every archive's directory.

    Raises OSError, SafetensorError or RuntimeError if a file is cut short.
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
            raise OSError(f"{path} is cut short ({error})") from error


def make_visible(staged: Path, final: Path, metrics: dict[str, Any]) -> None:
    """Makes a staged checkpoint visible: writes metrics last, syncs everything to disk, then renames once."""
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
    """Sets the link `best` in a run's folder, the model to use; the link is replaced atomically."""
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
    kept = {*best_checkpoints(stage_folder, keep), *last}
    for path in complete_checkpoints(stage_folder):
        if path not in kept:
            delete_atomic(path)
