"""Estimates of a stage: GPU memory, seconds and dollars; whether it fits, and which changes would make it fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import yaml

from caspi.errors import UsageError
from caspi.training.config import TrainConfig
from caspi.training.planning.costs import MicroBatchLoads, ModelShape, TrainableShape, block_passes, flops, peak_memory

TABLE = Path(__file__).parent / "gpus.yaml"
# The optimizer reads weight, gradient and two moments and writes three of them: 28 bytes per parameter, at the share of
# the memory bandwidth that a fused AdamW reached on an H100 (0.025 s for 2.04 billion parameters).
_OPTIMIZER_BYTES, _OPTIMIZER_USE = 28, 0.69
_ORTHOGONAL_USE = 0.4  # share of the rate that Muon's orthogonalisation reaches (H200, docs/log/2026-11-27.md)
_UNCOMPILED = 1.8  # factor of the time if blocks are not compiled
_A_STEP = 0.05  # seconds between steps: the next batch, the log, the schedule
# FSDP2 gathers the weights of a block before each pass through it; its hooks make the host launch that much more,
# fitted to one measured run (round1 on 2 x H200, docs/plan.md). Bytes per parameter that travel in a micro-batch: bf16
# weights for both passes, fp32 gradients.
_SHARDED_LAUNCH, _GATHERED_BYTES = 1.45, 8


@dataclass(frozen=True, slots=True)
class Gpu:
    """A kind of GPU; gpus.yaml explains the fields."""

    name: str
    memory: float
    rate: float
    bandwidth: float
    link: float
    price: float
    use: float
    overhead: float
    launch: float
    spot: float | None = None
    interruptions: float = 0.0


_OPTIONAL = ("spot", "interruptions")
_DATE = "date"  # of a table's prices


def prices_date(table: Path | None = None) -> str:
    """The date of a table's prices, as the table says it; "" if it does not."""
    content = yaml.safe_load((table or TABLE).read_text(encoding="utf-8"))
    return str(content.get(_DATE, "")) if isinstance(content, dict) else ""


def gpus(table: Path | None = None) -> dict[str, Gpu]:
    """The known kinds of GPU, including those of the user's own table. Raises UsageError."""
    known: dict[str, Gpu] = {}
    for path in (TABLE, *([table] if table else [])):
        try:
            for name, values in yaml.safe_load(path.read_text(encoding="utf-8")).items():
                if name != _DATE:
                    known[name] = _gpu(name, values)
        except (OSError, TypeError, ValueError, AttributeError, yaml.YAMLError) as error:
            reason = " ".join(str(error).split())
            raise UsageError(f"{path} is not a table of GPU kinds ({reason}); see {TABLE} for an example") from error
    return known


def _gpu(kind: str, values: Mapping[str, object]) -> Gpu:
    """Raises ValueError."""
    fields = [name for name in Gpu.__dataclass_fields__ if name != "name"]
    missing = [name for name in ("name", *fields) if name not in values and name not in _OPTIONAL]
    unknown = [str(name) for name in values if name not in ("name", *fields)]
    if missing or unknown:
        raise ValueError(f"{kind}: " + ("no " + ", ".join(missing) if missing else "unknown: " + ", ".join(unknown)))
    numbers = {name: float(str(values[name])) for name in fields if name in values}
    may_be_0 = ("price", "launch", *_OPTIONAL)
    if bad := [name for name, value in numbers.items() if not value > 0 and name not in may_be_0]:
        raise ValueError(f"{kind}: {', '.join(bad)} must be more than 0")
    return Gpu(str(values["name"]), **numbers)


def recognised(device_name: str, known: Mapping[str, Gpu]) -> Gpu | None:
    """The kind of a device, by torch's name for it."""
    return next((gpu for gpu in known.values() if gpu.name in device_name), None)


# GiB that the allocator reserves beyond the peak: 2 to 4 in the table of docs/plan.md, less with expandable segments.
ALLOCATOR = 2.0


@dataclass(frozen=True, slots=True)
class Estimate:
    """For one stage. peak: GiB of the largest micro-batch; seconds: of all steps, without evaluation and saving."""

    peak: float
    seconds: float


def seconds_each(
    shape: ModelShape, learning: TrainableShape, loads: MicroBatchLoads, gpu: Gpu, shards: int = 1
) -> np.ndarray:
    """Seconds of every micro-batch: the GPU's computing time or the host's launch time, whichever is longer. shards:
    GPUs that share the weights."""
    computing = gpu.overhead + flops(shape, learning, loads) / (gpu.rate * 1e12 * gpu.use)
    launching = gpu.launch * block_passes(shape, learning)
    if shards > 1:
        computing = computing + _GATHERED_BYTES * shape.parameters * (shards - 1) / shards / (gpu.link * 1e9)
        launching *= _SHARDED_LAUNCH
    return np.asarray(np.maximum(computing, launching))


def running(gpu: Gpu, learning: TrainableShape) -> Gpu:
    """A GPU kind with its figures adapted to a stage: the table's figures are for compiled blocks."""
    if learning.compiled:
        return gpu
    use, overhead, launch = gpu.use / _UNCOMPILED, gpu.overhead * _UNCOMPILED, gpu.launch * _UNCOMPILED
    return replace(gpu, use=use, overhead=overhead, launch=launch)


def estimate(
    shape: ModelShape,
    learning: TrainableShape,
    loads: MicroBatchLoads,
    gpu: Gpu,
    ranks: int,
    *,
    optimizer_seconds: float | None = None,
    shards: int = 1,
) -> Estimate:
    """A step takes as long as its slowest rank; then gradients are summed and the optimizer steps. shards: GPUs that
    share the weights; their gradients are summed in every micro-batch."""
    each = seconds_each(shape, learning, loads, gpu, shards)
    steps = int(loads.step.max()) + 1
    by_rank = np.zeros((steps, ranks))
    np.add.at(by_rank, (loads.step, loads.rank), each)
    if optimizer_seconds is None:
        optimizer_seconds = learning.parameters * _OPTIMIZER_BYTES / (gpu.bandwidth * 1e12 * _OPTIMIZER_USE)
        optimizer_seconds += learning.orthogonal / (gpu.rate * 1e12 * _ORTHOGONAL_USE)
        optimizer_seconds /= shards
    summing = 0.0 if shards > 1 else 4 * learning.parameters * 2 * (ranks - 1) / ranks / (gpu.link * 1e9)
    seconds = float(by_rank.max(axis=1).sum()) + steps * (optimizer_seconds + summing + _A_STEP)
    return Estimate(float(peak_memory(shape, learning, loads, shards).max()), seconds)


_OTHER_CLIPS = 1.03  # margin: smaller micro-batches are not exact shares of the old ones, and some have more text


def changes_that_fit(
    shape: ModelShape, learning: TrainableShape, loads: MicroBatchLoads, config: TrainConfig, memory: float, ranks: int
) -> list[str]:
    """Changes to a recipe, each of which makes the largest micro-batch fit `memory` GiB; the mildest first."""
    worst = loads.only(int(peak_memory(shape, learning, loads).argmax()))
    memory /= _OTHER_CLIPS
    again = replace(learning, activation_checkpointing_every=1)
    found = []
    ways = [(learning, "")] + (
        [(again, "train.activation_checkpointing_every=1 ")] if learning.activation_checkpointing_every != 1 else []
    )
    for how, names in ways:
        if names and peak_memory(shape, how, worst)[0] <= memory:
            found.append(names.strip())
            break
        share = _share_that_fits(shape, how, worst, memory)
        seconds = int(share * worst.seconds[0])
        if seconds >= config.max_seconds:
            tokens = int(share * worst.tokens[0])
            found.append(f"{names}train.max_batch_seconds={seconds} train.max_batch_tokens={max(tokens, 1)}")
    if ranks > 1 and peak_memory(shape, learning, worst, shards=ranks)[0] <= memory:
        found.append("recipes/accelerate/fsdp2.yaml")
    return found


def _share_that_fits(shape: ModelShape, learning: TrainableShape, worst: MicroBatchLoads, memory: float) -> float:
    """The largest share of a micro-batch that fits, by bisection: memory grows with it."""
    low, high = 0.0, 1.0
    for _ in range(20):
        middle = (low + high) / 2
        fits = peak_memory(shape, learning, worst.only(0, middle))[0] <= memory
        low, high = (middle, high) if fits else (low, middle)
    return low
