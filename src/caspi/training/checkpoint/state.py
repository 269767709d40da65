"""Converts between a stage's state in memory and its checkpoints: gathers shards, merges adapters, exchanges the
weights with their moving average; and back."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError

from caspi.audio import Seconds
from caspi.errors import CaspiError, first_line
from caspi.model import adapters
from caspi.model.aligner import TrainedModel
from caspi.training.checkpoint import files as checkpoints
from caspi.training.config import StageConfig
from caspi.training.distributed.sharding import full_tensor, is_sharded, load_shard, local_shard
from caspi.training.optim.ema import Ema


class Checkpointer:
    """Writes and reads the weights and the moving average of one stage. All processes call it; only the one with
    `is_writer` writes. max_clip_seconds: of the longest training clip."""

    def __init__(self, loaded: TrainedModel, stage: StageConfig, max_clip_seconds: Seconds, *, is_writer: bool) -> None:
        self._loaded, self._stage, self._max_clip_seconds = loaded, stage, max_clip_seconds
        self._is_writer = is_writer
        self._adapted = any(group.lora is not None for group in stage.groups.values())
        self._ema: Ema | None = None
        self._loaded_average: checkpoints.Weights = {}  # of the checkpoint that this session resumes from

    def trained(self) -> dict[str, torch.Tensor]:
        """The trained parameters, by their names in the model; under sharding, this process's shards."""
        return {name: p for name, p in self._loaded.model.named_parameters() if p.requires_grad}

    def start_average(self) -> None:
        """Starts the moving average of a stage that has one: from the checkpoint, or from the current weights."""
        if self._stage.ema is None:
            return
        self._ema = Ema({name: local_shard(parameter) for name, parameter in self.trained().items()}, self._stage.ema)
        if self._loaded_average:
            with self._ema.in_place():
                for name, parameter in self.trained().items():
                    load_shard(parameter, self._loaded_average[name])
        self._loaded_average = {}

    def update_average(self, step: int) -> None:
        """Updates the moving average, if there is one, after optimizer step `step`, counted from 1."""
        if self._ema is not None:
            self._ema.update(step)

    def weights_to_save(self) -> contextlib.AbstractContextManager[None]:
        """Inside the block the model has the weights that the stage saves: the moving average if it has one."""
        return contextlib.nullcontext() if self._ema is None else self._ema.in_place()

    def save_model(self, folder: Path) -> None:
        """Writes weights without adapters; what training resumes from is stored beside them."""
        with self.weights_to_save():
            if self._adapted:
                weights = adapters.merged(self._loaded.model)
            else:
                weights = self._gathered(dict(self._loaded.model.named_parameters()))
            average = self._gathered(self.trained()) if self._ema is not None else {}
            if self._is_writer:
                average = {name: value.to("cpu", copy=True) for name, value in average.items()}
                checkpoints.save_model(self._loaded, weights, folder, self._max_clip_seconds)
        if self._adapted or self._ema is not None:
            raw = self._gathered(self.trained())
            if self._is_writer:
                checkpoints.save_trained(folder, raw, average, adapters.described(self._loaded.model))

    def load_model(self, folder: Path) -> None:
        """Loads only what is trained; all other weights are those of the stage's initial model, already loaded.

        Raises CaspiError if the checkpoint is of another recipe, or incomplete.
        """
        try:
            raw, average = checkpoints.trained_weights(folder)
            for name, parameter in self.trained().items():
                load_shard(parameter, raw[name])
            if self._stage.ema is not None:
                self._loaded_average = {name: average[name] for name in self.trained()}
        except (KeyError, RuntimeError, OSError, SafetensorError) as error:
            raise CaspiError(
                f"cannot resume from checkpoint {folder} ({first_line(error)}): is it of this recipe, and complete? "
                "Without that folder the same command resumes from the one before"
            ) from error

    def _gathered(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Whole tensors, on the process that writes; if they were sharded, in the host's memory."""
        if not any(is_sharded(tensor) for tensor in tensors.values()):
            return {name: tensor.detach() for name, tensor in tensors.items()}
        gathered = {}
        for name, tensor in tensors.items():
            value = full_tensor(tensor)
            if self._is_writer:
                gathered[name] = value.cpu()
        return gathered
