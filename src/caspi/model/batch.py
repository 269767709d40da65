"""Utterances to batches: prompts and targets are concatenated, labels are target tokens; only samples are padded."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
import torch

from caspi.corpus.utterance import Word
from caspi.model.alignment import AlignmentPrompt
from caspi.model.features import (
    CHUNK_FRAMES,
    FRAMES_PER_SECOND,
    TOKENS_PER_CHUNK,
    WINDOW_CHUNKS,
    audio_token_count,
    frame_count,
    pad_clips,
)
from caspi.model.letters import LetterPrompt
from caspi.model.prompt import Example, Prompt


@dataclass(frozen=True, slots=True)
class Sequences:
    """Packed sequences of the decoder.

    input_ids, position_ids: int64 [tokens]; bounds: int32 [sequences + 1]; max_length: in tokens;
    audio_positions: int64 [audio tokens]; label_positions: int64 [labels], the positions that predict labels;
    labels: int64 [labels], the tokens to predict.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    bounds: torch.Tensor
    max_length: int
    audio_positions: torch.Tensor
    label_positions: torch.Tensor
    labels: torch.Tensor


class TargetText(NamedTuple):
    """The text of a clip, its language, and its token ids."""

    text: str
    language: str
    example: Example


@dataclass(frozen=True, slots=True)
class Batch:
    """A micro-batch: clips, and a packed sequence for each. rows: of the corpus; items, epoch: for hypotheses sampled
    from the model."""

    audio: AudioBatch
    sequences: Sequences
    seconds: float
    rows: tuple[int, ...] = ()
    masks: FeatureMasks | None = None
    items: tuple[TargetText, ...] = ()
    epoch: int = 0

    @property
    def labels(self) -> torch.Tensor:
        """int64 [labels]: target tokens."""
        return self.sequences.labels


@dataclass(frozen=True, slots=True)
class Item:
    """One utterance ready for collation. row: of the corpus. words: with their times, for alignment; slotted: whether
    each has slots."""

    samples: np.ndarray
    text: str
    language: str
    context: str = ""
    row: int = -1
    words: tuple[Word, ...] = ()
    slotted: tuple[bool, ...] = ()


AlignerPrompt: TypeAlias = AlignmentPrompt | LetterPrompt
AnyPrompt: TypeAlias = Prompt | AlignerPrompt


def collate(items: Sequence[Item], prompt: AnyPrompt, masks: FeatureMasks | None = None, epoch: int = 0) -> Batch:
    """Builds the micro-batch. The loss covers exactly the target tokens, from the language to the end of the turn; for
    alignment exactly the slots, or all frames."""
    samples, frames = pad_clips([item.samples for item in items])
    audio_tokens = [audio_token_count(frame_count(len(item.samples))) for item in items]
    rows, seconds = tuple(item.row for item in items), float(frames.sum()) / FRAMES_PER_SECOND
    if not isinstance(prompt, Prompt):
        if isinstance(prompt, LetterPrompt):
            sequences = pack_letters(items, audio_tokens, prompt)
        else:
            sequences = pack_slots(items, audio_tokens, prompt)
        return Batch(AudioBatch.of(samples, frames), sequences, seconds, rows, masks, epoch=epoch)
    examples = [
        prompt.example(count, item.text, item.language, item.context)
        for count, item in zip(audio_tokens, items, strict=True)
    ]
    return Batch(
        audio=AudioBatch.of(samples, frames),
        sequences=pack(examples, prompt),
        seconds=seconds,
        rows=rows,
        masks=masks,
        items=tuple(
            TargetText(item.text, item.language, example) for item, example in zip(items, examples, strict=True)
        ),
        epoch=epoch,
    )


class _Sequence(NamedTuple):
    """One sequence to pack: token ids, positions of the audio and of the labels in it, labels."""

    ids: list[int]
    audio: range
    label_positions: Sequence[int]
    labels: Sequence[int]


def pack(examples: Sequence[Example], prompt: Prompt) -> Sequences:
    """Concatenates prompts and their targets; each prompt contains the audio tokens of its clip."""
    found = []
    for example in examples:
        first_audio = example.prompt.index(prompt.audio)
        audio = range(first_audio, first_audio + example.prompt.count(prompt.audio))
        first_target, ids = len(example.prompt), example.prompt + example.target
        labels_at = range(first_target - 1, len(ids) - 1)  # a position predicts the next token
        found.append(_Sequence(ids, audio, labels_at, example.target))
    return _packed(found)


def pack_slots(items: Sequence[Item], audio_tokens: Sequence[int], prompt: AlignmentPrompt) -> Sequences:
    """Alignments one after another. A label is at the position of its slot, not before it."""
    found = []
    for item, count in zip(items, audio_tokens, strict=True):
        slotted = item.slotted or (True,) * len(item.words)
        example = prompt.example(count, [word.text for word in item.words], slotted)
        timed = [word for word, has_slots in zip(item.words, slotted, strict=True) if has_slots]
        labels = [prompt.bin_of(time) for word in timed for time in (word.start, word.end)]
        found.append(_Sequence(example.ids, range(1, 1 + count), example.slots, labels))
    return _packed(found)


def pack_letters(items: Sequence[Item], audio_tokens: Sequence[int], prompt: LetterPrompt) -> Sequences:
    """Clips one after another. The labels of a position are those of its frames, FRAMES_PER_POSITION for each."""
    found = []
    for item, count in zip(items, audio_tokens, strict=True):
        audio, labels = range(1, 1 + count), prompt.labels(item.words, count).ravel().tolist()
        found.append(_Sequence(prompt.ids(count), audio, audio, labels))
    return _packed(found)


def _packed(sequences: Sequence[_Sequence]) -> Sequences:
    starts = list(itertools.accumulate((len(one.ids) for one in sequences), initial=0))

    def moved(positions: Sequence[Sequence[int]]) -> torch.Tensor:
        """Positions in each sequence as positions in all."""
        return torch.cat(
            [torch.tensor(of, dtype=torch.long) + start for of, start in zip(positions, starts, strict=False)]
        )

    return Sequences(
        input_ids=torch.tensor([token for one in sequences for token in one.ids]),
        position_ids=torch.cat([torch.arange(len(one.ids)) for one in sequences]),
        bounds=torch.tensor(starts, dtype=torch.int32),
        max_length=max(len(one.ids) for one in sequences),
        audio_positions=moved([one.audio for one in sequences]),
        label_positions=moved([one.label_positions for one in sequences]),
        labels=torch.tensor([label for one in sequences for label in one.labels]),
    )


_WINDOW_TOKENS = WINDOW_CHUNKS * TOKENS_PER_CHUNK


@dataclass(frozen=True, slots=True)
class AudioBatch:
    """Clips of a batch, with everything that depends only on lengths computed on the host.

    samples: float32 [clips, EDGE + longest clip + EDGE]; frames: int64 [clips];
    chunks: int64 [n] the cells of the clips x seconds grid that contain audio; token_positions: int64 [tokens] which of
    their n x 13 output positions are tokens of audio; window_bounds: int32 [windows + 1] cumulative tokens of attention
    windows; max_window_length: in tokens; tokens: of each clip.
    """

    samples: torch.Tensor
    frames: torch.Tensor
    chunks: torch.Tensor
    token_positions: torch.Tensor
    window_bounds: torch.Tensor
    max_window_length: int
    tokens: list[int]

    @classmethod
    def of(cls, samples: torch.Tensor, frames: torch.Tensor) -> AudioBatch:
        """From `features.pad_clips`."""
        counts: list[int] = frames.tolist()
        grid = -(-max(counts) // CHUNK_FRAMES)
        chunks: list[int] = []
        token_positions, window_bounds = [], [0]
        for clip, count in enumerate(counts):
            remaining = audio_token_count(count)
            first = len(chunks) * TOKENS_PER_CHUNK
            # Only the last second of a clip may be partial.
            token_positions.append(torch.arange(first, first + remaining))
            chunks += range(clip * grid, clip * grid - (-count // CHUNK_FRAMES))
            while remaining:
                window_bounds.append(window_bounds[-1] + min(remaining, _WINDOW_TOKENS))
                remaining -= min(remaining, _WINDOW_TOKENS)
        bounds = torch.tensor(window_bounds, dtype=torch.int32)
        return cls(
            samples=samples,
            frames=frames,
            chunks=torch.tensor(chunks),
            token_positions=torch.cat(token_positions),
            window_bounds=bounds,
            max_window_length=int((bounds[1:] - bounds[:-1]).max()),
            tokens=[audio_token_count(count) for count in counts],
        )


@dataclass(frozen=True, slots=True)
class FeatureMasks:
    """Masks on the features: int64 [clips, masks, 2] (start, width) in mel bins and in frames."""

    frequency: torch.Tensor
    time: torch.Tensor

    def apply(self, features: torch.Tensor) -> torch.Tensor:
        """features [clips, MEL_BINS, time], masked values set to 0."""
        _, bins, time = features.shape
        masked = _is_masked(self.frequency, bins)[:, :, None] | _is_masked(self.time, time)[:, None, :]
        return features.masked_fill(masked, 0.0)


def _is_masked(masks: torch.Tensor, size: int) -> torch.Tensor:
    """bool [clips, size]: inside any of the (start, width) masks."""
    position = torch.arange(size, device=masks.device)
    start, width = masks[:, :, :1], masks[:, :, 1:]
    return ((position >= start) & (position < start + width)).any(dim=1)
