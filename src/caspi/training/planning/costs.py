"""The cost of a step: FLOPs and memory, computed from the plan's micro-batches, the model's shape and what is trained.

The constants were fitted to benchmarks/step_memory.py (the 1.7B, torch 2.11; H100, 2026-11-26, and H200 with compiled
blocks, 2026-11-27; docs/plan.md has the tables). They are bytes per token and unit of width, and hold for packed
sequences under bf16 autocast.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn
from transformers import Qwen3ASRConfig

from caspi.model.groups import TrainableGroup, partition
from caspi.training.config import OptimizerName
from caspi.training.data.batch_plan import EpochPlan
from caspi.training.data.dataset import TrainingSet
from caspi.training.data.epoch_lengths import EpochLengths
from caspi.training.objectives.fused_loss import AT_ONCE
from caspi.training.optim.build import by_momentum
from caspi.training.optim.muon import orthogonal_flops

_GIB = 2**30
# Bytes per parameter. Forward: the fp32 weight and the bf16 copy that autocast keeps for a pass. Backward: the gradient
# in place of that copy. The optimizer's state is added to this. Frozen: bf16.
_TRAINED_FORWARD, _TRAINED_BACKWARD, _FROZEN = 6, 8, 2
_MOMENTS = {"adamw8bit": 2}  # optimizer state in bytes per parameter: two moments in fp32, unless listed here
_BY_MOMENTUM = 4  # the same for the matrices of Muon
_ACCUMULATED = 4  # the gradient of the previous micro-batches, in all but the first of a step
# Bytes a block keeps for the backward pass, per token and unit of width: plain, and compiled (H200, 2026-11-27).
_DECODER_TRAINED = (78.6, 44.9)
_DECODER_PASSED = (35.5, 24.3)  # the same of a frozen block that gradients pass through
_ENCODER = 27.4
_ENCODER_BELOW = (15.4, 8.8)  # if the front is trained too
_INPUT = 4  # what a block with activation checkpointing keeps
_ADAPTED_COMPILED = 0.79  # share of what plain blocks with adapters keep
_ADAPTED = 2  # factor for a block with adapters while it is recomputed
_FRONT = 554_139 / 480  # of the convolutions, per audio token and channel
_FRONT_BACKWARD = 1.62
_LOGITS = 6  # bytes per logit, in fp32 and bf16, for as many as the head computes at once
# Kernel launch time of the host, in passes through a block in one direction: gradients of weights count as one more
# pass; recomputation and adapters launch more kernels.
_RECOMPUTED, _ADAPTED_PASS = 1.9, 1.6
_EMBEDDINGS_GRADIENT = 4  # bytes per entry of a trained table, in fp32, while the forward pass still holds activations


@dataclass(frozen=True, slots=True)
class ModelShape:
    """What computing and memory depend on in a model: widths, blocks, parameters of each kind of group."""

    width: int
    audio_width: int
    channels: int
    vocabulary: int
    decoder_blocks: int
    encoder_blocks: int
    groups: dict[str, int]

    @classmethod
    def of(cls, model: nn.Module, config: Qwen3ASRConfig) -> ModelShape:
        """The shape of a model, which may be on the meta device; adapters are not counted."""
        sizes = {name: parameter.numel() for name, parameter in model.named_parameters() if ".lora_" not in name}
        groups: dict[str, int] = {}
        for label, names in partition(model).items():
            stack = label.partition("[")[0]
            groups[stack] = groups.get(stack, 0) + sum(sizes.get(name, 0) for name in names)
        return cls(
            width=config.text_config.hidden_size,
            audio_width=config.audio_config.d_model,
            channels=config.audio_config.downsample_hidden_size,
            vocabulary=config.text_config.vocab_size,
            decoder_blocks=config.text_config.num_hidden_layers,
            encoder_blocks=config.audio_config.encoder_layers,
            groups=groups,
        )

    @property
    def parameters(self) -> int:
        return sum(self.groups.values())


@dataclass(frozen=True, slots=True)
class TrainableShape:
    """What a stage trains of a model: parameters, and the blocks that gradients are computed in or pass through.
    kept: bytes of the optimizer's state; orthogonal: FLOPs of a step of Muon; beside: parameters of a second model, the
    teacher or reference."""

    parameters: int
    kept: float
    front: bool
    embeddings: bool
    encoder_blocks: int
    encoder_passed: int
    decoder_blocks: int
    decoder_passed: int
    adapted: bool = False
    activation_checkpointing_every: int = 0
    compiled: bool = False
    beside: int = 0
    orthogonal: float = 0.0

    @classmethod
    def of(
        cls,
        model: nn.Module,
        shape: ModelShape,
        groups: Sequence[TrainableGroup],
        *,
        optimizer: OptimizerName = "adamw",
        activation_checkpointing_every: int = 0,
        compiled: bool = False,
        beside: int = 0,
    ) -> TrainableShape:
        parameters = dict(model.named_parameters())
        sizes = {name: parameter.numel() for name, parameter in parameters.items()}
        names = {name for group in groups for name in group.names}
        touched = [label for label, members in partition(model).items() if names.intersection(members)]
        encoder = sum(label.startswith("audio_layers") for label in touched)
        decoder = sum(label.startswith("decoder_layers") for label in touched)
        front, embeddings = "audio_front" in touched, "embeddings" in touched
        stepped = {
            name: momentum for group in groups for name, momentum in by_momentum(group, parameters, optimizer).items()
        }
        below = front or embeddings or encoder > 0 or "projector" in touched
        return cls(
            parameters=sum(sizes[name] for name in names),
            kept=sum(
                sizes[name] * (_BY_MOMENTUM if momentum else _MOMENTS.get(optimizer, 8))
                for name, momentum in stepped.items()
            ),
            orthogonal=sum(orthogonal_flops(*parameters[n].shape) for n, momentum in stepped.items() if momentum),
            front=front,
            embeddings=embeddings,
            encoder_blocks=encoder,
            encoder_passed=shape.encoder_blocks - encoder if front else 0,
            decoder_blocks=decoder,
            decoder_passed=shape.decoder_blocks - decoder if below else 0,
            adapted=any(group.lora is not None for group in groups),
            activation_checkpointing_every=activation_checkpointing_every,
            compiled=compiled,
            beside=beside,
        )


@dataclass(frozen=True, slots=True)
class MicroBatchLoads:
    """Micro-batches; each array has one entry per micro-batch: seconds of audio, tokens of the decoder and of the
    encoder, labels, its step and rank, and whether it is the first of that step and rank."""

    seconds: np.ndarray
    tokens: np.ndarray
    audio_tokens: np.ndarray
    labels: np.ndarray
    step: np.ndarray
    rank: np.ndarray
    first: np.ndarray

    @classmethod
    def of(cls, data: TrainingSet, plans: Sequence[EpochPlan], steps: int, sequences: int = 1) -> MicroBatchLoads:
        """Of the first `steps` steps of a stage; `sequences`: sequences of the decoder per clip."""
        parts, before = [], 0
        for plan in plans:
            if taken := plan.steps[: steps - before]:
                parts.append(cls._of_epoch(data.target_tokens, plan.lengths, taken, before, sequences))
                before += len(taken)
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in cls.__dataclass_fields__))

    @classmethod
    def _of_epoch(
        cls,
        target_tokens: np.ndarray,
        lengths: EpochLengths,
        steps: Sequence[list[list[np.ndarray]]],
        before: int,
        sequences: int,
    ) -> MicroBatchLoads:
        found = list(_micro_batches(steps))
        rows = np.concatenate([micro for *_, micro in found])
        starts = np.cumsum([0, *(len(micro) for *_, micro in found[:-1])])

        def total(values: np.ndarray) -> np.ndarray:
            return np.add.reduceat(values[rows].astype(np.float64), starts)

        return cls(
            seconds=total(lengths.seconds),
            tokens=total(lengths.sequence_tokens) * sequences,
            audio_tokens=total(lengths.audio_tokens),
            labels=total(target_tokens) * sequences,
            step=before + np.array([step for step, *_ in found]),
            rank=np.array([rank for _, rank, _, _ in found]),
            first=np.array([first for *_, first, _ in found]),
        )

    def only(self, index: int, share: float = 1.0) -> MicroBatchLoads:
        """One micro-batch, or a share of it; a share is never the first of its step, so gradients are accumulated."""
        kept = {name: getattr(self, name)[index : index + 1] for name in MicroBatchLoads.__dataclass_fields__}
        for name in ("seconds", "tokens", "audio_tokens", "labels"):
            kept[name] = kept[name] * share
        return MicroBatchLoads(**kept | {"first": kept["first"] & (share == 1.0)})


def _micro_batches(steps: Sequence[list[list[np.ndarray]]]) -> Iterator[tuple[int, int, bool, np.ndarray]]:
    for number, step in enumerate(steps):
        for rank, micros in enumerate(step):
            for place, micro in enumerate(micros):
                yield number, rank, place == 0, micro


def flops(shape: ModelShape, learning: TrainableShape, loads: MicroBatchLoads) -> np.ndarray:
    """FLOPs of each micro-batch, forward and backward: 2 per weight and token forward, 2 more each for the gradients of
    inputs and of weights; convolutions by their outputs. Attention scores are not counted: short clips have few."""
    decoder = 2 * shape.groups["decoder_layers"] / shape.decoder_blocks * loads.tokens  # one block, forward
    encoder = 2 * shape.groups["audio_layers"] / shape.encoder_blocks * loads.audio_tokens
    # Three convolutions of 3 x 3 with stride 2, over 128 bins and 100 frames a second.
    front = 2 * 9 * shape.channels * (64 * 50 + shape.channels * (32 * 25 + 16 * 13)) * loads.seconds
    head = 2 * shape.groups["embeddings"] * loads.labels
    projector = 2 * shape.groups["projector"] * loads.audio_tokens
    forward = shape.decoder_blocks * decoder + shape.encoder_blocks * encoder + front + head + projector
    backward = (
        (2 * learning.decoder_blocks + learning.decoder_passed) * decoder
        + (2 * learning.encoder_blocks + learning.encoder_passed) * encoder
        + (2 * front if learning.front else 0)
        + (2 if learning.embeddings else 1) * head
        + 2 * projector
    )
    again: np.ndarray | float = 0.0
    if learning.activation_checkpointing_every:
        blocks = (learning.decoder_blocks + learning.decoder_passed) * decoder
        again = (
            blocks + (learning.encoder_blocks + learning.encoder_passed) * encoder
        ) / learning.activation_checkpointing_every
    beside = 2 * learning.beside * loads.tokens  # from the parameters alone, which is a little too much
    return np.asarray(forward + backward + again + beside)


def block_passes(shape: ModelShape, learning: TrainableShape) -> float:
    """The number of passes of a micro-batch through a block in one direction. The time to launch its kernels depends on
    this, not on its size."""
    trained = learning.decoder_blocks + learning.encoder_blocks
    touched = trained + learning.decoder_passed + learning.encoder_passed
    passes = shape.decoder_blocks + shape.encoder_blocks + trained + touched
    again = touched / learning.activation_checkpointing_every if learning.activation_checkpointing_every else 0.0
    adapted = trained * (2 if again else 1) if learning.adapted else 0
    return passes + _RECOMPUTED * again + _ADAPTED_PASS * adapted


def peak_memory(shape: ModelShape, learning: TrainableShape, loads: MicroBatchLoads, shards: int = 1) -> np.ndarray:
    """Peak memory in GiB of each micro-batch. shards: number of GPUs that hold the sharded weights and optimizer."""
    width, every = shape.width, learning.activation_checkpointing_every
    compiled = learning.compiled and not learning.adapted
    trained = _DECODER_TRAINED[compiled]
    passed = learning.decoder_blocks * trained + learning.decoder_passed * _DECODER_PASSED[compiled]
    decoder = loads.tokens * width * passed
    a_block = _ENCODER_BELOW[compiled] if learning.front else _ENCODER
    encoder_blocks = learning.encoder_blocks + learning.encoder_passed
    encoder = loads.audio_tokens * shape.audio_width * a_block * encoder_blocks
    blocks, one_again, waiting = decoder + encoder, np.zeros_like(decoder), np.zeros_like(decoder)
    if learning.compiled and learning.adapted:
        blocks = _ADAPTED_COMPILED * blocks
    if every:
        inputs = loads.tokens * width * (learning.decoder_blocks + learning.decoder_passed)
        inputs = inputs + loads.audio_tokens * shape.audio_width * encoder_blocks
        waiting = blocks * (1 - 1 / every) + _INPUT * inputs / every
        blocks = waiting
        one_again = np.maximum(loads.tokens * width * trained, loads.audio_tokens * shape.audio_width * a_block) * (
            _ADAPTED if learning.adapted else 1
        )
    front = loads.audio_tokens * _FRONT * shape.channels if learning.front else np.zeros_like(decoder)
    table = _EMBEDDINGS_GRADIENT * shape.groups["embeddings"] if learning.embeddings else 0
    frozen = _FROZEN * (shape.parameters - min(learning.parameters, shape.parameters))
    beside = _FROZEN * learning.beside
    before = np.full_like(decoder, (_TRAINED_FORWARD * learning.parameters + learning.kept + frozen) / shards)
    before = before + np.where(loads.first, 0, _ACCUMULATED * learning.parameters / shards)
    logits = _LOGITS * np.minimum(loads.labels * shape.vocabulary, AT_ONCE)
    forward = before + table + blocks + front + logits
    turning = before + waiting + one_again  # the last block is recomputed, all others wait
    held = (_TRAINED_BACKWARD * learning.parameters + learning.kept + frozen) / shards
    backward = held + _FRONT_BACKWARD * front + one_again
    whole = _gathered(shape) if shards > 1 else 0.0
    return np.asarray((np.maximum(np.maximum(forward, turning), backward) + whole + beside) / _GIB)


def _gathered(shape: ModelShape) -> float:
    """Bytes that sharding gathers on one GPU: everything outside the blocks with its gradient, and two blocks."""
    outside = shape.groups["audio_front"] + shape.groups["projector"] + shape.groups["embeddings"]
    return 8.0 * outside + 2 * 8.0 * shape.groups["decoder_layers"] / shape.decoder_blocks
