"""What a step costs: FLOPs counted, memory predicted, from the plan's micro-batches, the model's shape and what learns.

The constants were fitted to benchmarks/step_memory.py (the 1.7B, torch 2.11; H100, 2026-11-26, and H200 with compiled
blocks, 2026-11-27; docs/log.md has the tables). They are bytes a token and unit of width, and hold for packed sequences
under bf16 autocast.
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
# Bytes a parameter: fp32 weight, and a bf16 copy of each that autocast makes and keeps for a pass; with its gradient
# in the place of that copy, backwards. What the optimizer keeps comes on top. Frozen: bf16.
_TRAINED_FORWARD, _TRAINED_BACKWARD, _FROZEN = 6, 8, 2
_MOMENTS = {"adamw8bit": 2}  # bytes a parameter that an optimizer keeps: two moments in fp32, unless named here
_BY_MOMENTUM = 4  # and Muon of its matrices
_ACCUMULATED = 4  # the gradient of the micro-batches before, in every one but a step's first
# Kept of a block for the backward pass, a token and unit of width: plain, and compiled (H200, 2026-11-27).
_DECODER_TRAINED = (78.6, 44.9)
_DECODER_PASSED = (35.5, 24.3)  # the same of a frozen block that gradients pass through
_ENCODER = 27.4
_ENCODER_BELOW = (15.4, 8.8)  # where the front is trained too
_INPUT = 4  # what a block that recomputes keeps
_ADAPTED_COMPILED = 0.79  # of what plain blocks with adapters keep
_ADAPTED = 2  # as much again of a block that computes again with adapters
_FRONT = 554_139 / 480  # of the convolutions, an audio token and channel
_FRONT_BACKWARD = 1.62
_LOGITS = 6  # a logit in fp32 and bf16, of as many as the head takes at once
# Of a host that launches kernels, by how often it goes through a block in one direction: gradients of weights are
# another time; recomputing and adapters launch more.
_RECOMPUTED, _ADAPTED_PASS = 1.9, 1.6
_EMBEDDINGS_GRADIENT = 4  # bytes an entry of a trained table, in fp32, while the forward pass still holds activations


@dataclass(frozen=True, slots=True)
class ModelShape:
    """A model, as computing and memory see it: widths, blocks, parameters of each kind of group."""

    width: int
    audio_width: int
    channels: int
    vocabulary: int
    decoder_blocks: int
    encoder_blocks: int
    groups: dict[str, int]

    @classmethod
    def of(cls, model: nn.Module, config: Qwen3ASRConfig) -> ModelShape:
        """Of a model that may be on the meta device; adapters are not of its shape."""
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
    kept: bytes of the optimizer's state; orthogonal: FLOPs of a step of Muon; beside: parameters of another model that
    is asked."""

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
    """Micro-batches, one an entry of each array: seconds of audio, tokens of the decoder and of the encoder, labels;
    the step and rank each belongs to, and whether it is the first of them there."""

    seconds: np.ndarray
    tokens: np.ndarray
    audio_tokens: np.ndarray
    labels: np.ndarray
    step: np.ndarray
    rank: np.ndarray
    first: np.ndarray

    @classmethod
    def of(cls, data: TrainingSet, plans: Sequence[EpochPlan], steps: int, sequences: int = 1) -> MicroBatchLoads:
        """Of the first `steps` steps of a stage; `sequences`: so many of the decoder for every clip."""
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
        """One micro-batch, or a share of it: then its step has several, and gradients of those before are there."""
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
    """Of each micro-batch, forward and backward: 2 a weight and token forward, 2 more for each gradient of inputs and
    of weights; convolutions by their outputs; attention scores, which short clips make few, left out."""
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
    asked = 2 * learning.beside * loads.tokens  # by parameters alone, which is a little too much
    return np.asarray(forward + backward + again + asked)


def block_passes(shape: ModelShape, learning: TrainableShape) -> float:
    """How often a micro-batch goes through a block in one direction: what launching its kernels takes is by this, not
    by how much is in it."""
    trained = learning.decoder_blocks + learning.encoder_blocks
    touched = trained + learning.decoder_passed + learning.encoder_passed
    passes = shape.decoder_blocks + shape.encoder_blocks + trained + touched
    again = touched / learning.activation_checkpointing_every if learning.activation_checkpointing_every else 0.0
    adapted = trained * (2 if again else 1) if learning.adapted else 0
    return passes + _RECOMPUTED * again + _ADAPTED_PASS * adapted


def peak_memory(shape: ModelShape, learning: TrainableShape, loads: MicroBatchLoads, shards: int = 1) -> np.ndarray:
    """GiB at the worst moment of each micro-batch. shards: GPUs that weights and optimizer are spread over."""
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
    turning = before + waiting + one_again  # the last block computes again, all others wait
    held = (_TRAINED_BACKWARD * learning.parameters + learning.kept + frozen) / shards
    backward = held + _FRONT_BACKWARD * front + one_again
    whole = _gathered(shape) if shards > 1 else 0.0
    return np.asarray((np.maximum(np.maximum(forward, turning), backward) + whole + beside) / _GIB)


def _gathered(shape: ModelShape) -> float:
    """What sharding holds in one piece: everything outside the blocks with its gradient, and two blocks."""
    outside = shape.groups["audio_front"] + shape.groups["projector"] + shape.groups["embeddings"]
    return 8.0 * outside + 2 * 8.0 * shape.groups["decoder_layers"] / shape.decoder_blocks
