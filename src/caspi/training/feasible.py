"""What a stage asks for that this run's processes cannot do: said before the first stage begins."""

from __future__ import annotations

from caspi.errors import UsageError
from caspi.training.adamw8bit import require_torchao
from caspi.training.config import StageConfig
from caspi.training.objective_config import SequenceObjective
from caspi.training.processes import sharded, sharding

_WHOLE = "start it with torchrun, without an accelerate configuration that shards"


def check_stage(stage: StageConfig) -> None:
    """Raises UsageError, MissingDependency."""
    if stage.optimizer == "adamw8bit":
        require_torchao()
    if not sharded():
        return
    if any(how.lora for how in stage.learn.values()):
        raise UsageError(
            f"stage {stage.name}: adapters are not trained on sharded weights; their base fits every GPU: {_WHOLE}"
        )
    if isinstance(stage.objective, SequenceObjective):
        raise UsageError(f"stage {stage.name}: hypotheses are not drawn from sharded weights: {_WHOLE}")
    if stage.optimizer == "adamw8bit":
        raise UsageError(f"stage {stage.name}: sharded weights spread adamw's moments already: use optimizer: adamw")
    if sharding() == "zero3" and stage.optimizer != "adamw":
        raise UsageError(
            f"stage {stage.name}: ZeRO cuts matrices into pieces that {stage.optimizer} cannot step: use "
            "recipes/accelerate/fsdp2.yaml, or optimizer: adamw"
        )
