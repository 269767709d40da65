"""Utterances to batches: prompts and targets concatenated, labels where the target is, nothing padded but samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from caspi.model.features import FRAMES_PER_SECOND, audio_token_count, frame_count, pad_clips
from caspi.model.packed import AudioBatch
from caspi.model.prompt import Example, Prompt
from caspi.training.augmentation import FeatureMasks


@dataclass(frozen=True, slots=True)
class Sequences:
    """Packed sequences of the decoder.

    input_ids, position_ids: int64 [tokens]; bounds: int32 [sequences + 1]; longest: tokens;
    audio_positions: int64 [audio tokens]; label_positions: int64 [labels], the positions that predict;
    labels: int64 [labels], what they shall predict.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    bounds: torch.Tensor
    longest: int
    audio_positions: torch.Tensor
    label_positions: torch.Tensor
    labels: torch.Tensor


class Spoken(NamedTuple):
    """What is said in a clip, in which language, and as token ids."""

    text: str
    language: str
    example: Example


@dataclass(frozen=True, slots=True)
class Batch:
    """A micro-batch: clips, and a packed sequence for each. rows: of the corpus; items, epoch: for what is drawn of
    the model itself."""

    audio: AudioBatch
    sequences: Sequences
    seconds: float
    rows: tuple[int, ...] = ()
    masks: FeatureMasks | None = None
    items: tuple[Spoken, ...] = ()
    epoch: int = 0

    @property
    def labels(self) -> torch.Tensor:
        """int64 [labels]: target tokens."""
        return self.sequences.labels


@dataclass(frozen=True, slots=True)
class Item:
    """One utterance ready for collation. row: of the corpus."""

    samples: np.ndarray
    text: str
    language: str
    context: str = ""
    row: int = -1


def collate(items: Sequence[Item], prompt: Prompt, masks: FeatureMasks | None = None, epoch: int = 0) -> Batch:
    """Builds the micro-batch; the loss falls on exactly the target tokens, language to end of turn."""
    samples, frames = pad_clips([item.samples for item in items])
    audio_tokens = [audio_token_count(frame_count(len(item.samples))) for item in items]
    examples = [
        prompt.example(count, item.text, item.language, item.context)
        for count, item in zip(audio_tokens, items, strict=True)
    ]
    return Batch(
        audio=AudioBatch.of(samples, frames),
        sequences=pack(examples, prompt),
        seconds=float(frames.sum()) / FRAMES_PER_SECOND,
        rows=tuple(item.row for item in items),
        masks=masks,
        items=tuple(Spoken(item.text, item.language, made) for item, made in zip(items, examples, strict=True)),
        epoch=epoch,
    )


def pack(examples: Sequence[Example], prompt: Prompt) -> Sequences:
    """Prompts with their targets, one after another; in each prompt stand the audio tokens of its clip."""
    ids: list[int] = []
    positions: list[torch.Tensor] = []
    bounds, audio_positions, label_positions, labels = [0], [], [], []
    for example in examples:
        start = len(ids)
        first_audio = start + example.prompt.index(prompt.audio)
        audio_positions.append(torch.arange(first_audio, first_audio + example.prompt.count(prompt.audio)))
        ids += example.prompt + example.target
        first_target = start + len(example.prompt)
        label_positions.append(torch.arange(first_target - 1, len(ids) - 1))  # a position predicts the next token
        labels += example.target
        positions.append(torch.arange(len(ids) - start))
        bounds.append(len(ids))
    return Sequences(
        input_ids=torch.tensor(ids),
        position_ids=torch.cat(positions),
        bounds=torch.tensor(bounds, dtype=torch.int32),
        longest=max(len(p) for p in positions),
        audio_positions=torch.cat(audio_positions),
        label_positions=torch.cat(label_positions),
        labels=torch.tensor(labels),
    )
