"""Checks, before the first stage begins, that the processes of this run support what every stage requires."""

from __future__ import annotations

from caspi.errors import UsageError
from caspi.model.batch import AnyPrompt
from caspi.model.config import ModelConfig
from caspi.model.loading import load_processor
from caspi.model.prompt import Prompt
from caspi.training.config import StageConfig, TrainConfig
from caspi.training.distributed.processes import sharded, sharding
from caspi.training.objective_config import CrossEntropyObjective, DistillationObjective, SequenceObjective
from caspi.training.optim.adamw8bit import require_torchao
from caspi.training.planning.shapes import configured
from caspi.training.stage_setup import drops

_WHOLE = "start it with torchrun, without an accelerate configuration that shards"


def _check_teacher(stage: str, how: DistillationObjective, start: ModelConfig, prompt: Prompt) -> None:
    tokenizer = load_processor(how.teacher, how.revision).tokenizer
    sizes = {
        configured(model).text_config.vocab_size
        for model in (start, ModelConfig(start=how.teacher, revision=how.revision))
    }
    if tokenizer.get_vocab() != prompt.tokenizer.get_vocab() or len(sizes) > 1:
        raise UsageError(f"stage {stage}: teacher {how.teacher} has another vocabulary than the model that is trained")


_ONLY_TO_TRANSCRIBE = ("previous_text", "timestamps", "hotwords", "no_speech", "shuffle_transcripts")


def check_task(config: TrainConfig, start: ModelConfig) -> None:
    """Raises UsageError for keys that an aligner has no use for."""
    if start.task == "transcribe":
        return
    for key in _ONLY_TO_TRANSCRIBE:
        if getattr(config, key):
            raise UsageError(f"train.{key} has no effect with model.task: align: remove it")
    for stage in config.stages:
        if not isinstance(stage.objective, CrossEntropyObjective):
            raise UsageError(f"stage {stage.name}: with model.task: align the only objective is cross_entropy")


def check_stage(stage: StageConfig, config: TrainConfig, start: ModelConfig, prompt: AnyPrompt) -> None:
    """start, prompt: of the model that is trained. Raises UsageError, MissingDependency."""
    if isinstance(stage.objective, DistillationObjective) and isinstance(prompt, Prompt):
        _check_teacher(stage.name, stage.objective, start, prompt)
    if config.compile is True and sharding() == "zero3":
        raise UsageError("train.compile: ZeRO gathers weights inside blocks, which cannot be compiled: use auto")
    if config.compile is True and config.activation_checkpointing_every and drops(stage):
        raise UsageError(
            f"stage {stage.name}: blocks with adapter dropout and activation checkpointing cannot be compiled: "
            "use train.compile=auto, dropout: 0 or train.activation_checkpointing_every=0"
        )
    if stage.optimizer == "adamw8bit":
        require_torchao()
    if not sharded():
        return
    if any(how.lora for how in stage.groups.values()):
        raise UsageError(
            f"stage {stage.name}: adapters cannot be trained on sharded weights; the base fits every GPU: {_WHOLE}"
        )
    if isinstance(stage.objective, SequenceObjective):
        raise UsageError(f"stage {stage.name}: hypotheses cannot be sampled from sharded weights: {_WHOLE}")
    if sharding() == "zero3" and stage.optimizer != "adamw":
        raise UsageError(
            f"stage {stage.name}: ZeRO cuts matrices into pieces that {stage.optimizer} cannot update: use "
            "recipes/accelerate/fsdp2.yaml, or optimizer: adamw"
        )
