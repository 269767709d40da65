"""The times of the words of clips, from either kind of aligner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from caspi.alignment.times import in_order, slot_times
from caspi.alignment.viterbi import WordPaths, word_paths
from caspi.audio import SAMPLE_RATE
from caspi.model.aligner import LoadedAligner
from caspi.model.alignment import AlignmentPrompt
from caspi.model.batch import AlignerPrompt, Batch, Item, collate
from caspi.model.forward import evaluation_mode, label_logits
from caspi.model.letters import LetterPrompt, frame_logits
from caspi.model.tensors import to_device


@dataclass(frozen=True, slots=True)
class WordTimes:
    """Of every word of a clip, [words]: start and end in seconds, confidence, and whether it was moved to be in order.
    entropy: mean of the distributions that the times come from, in nats."""

    starts: np.ndarray
    ends: np.ndarray
    confidence: np.ndarray
    repaired: np.ndarray
    entropy: float


@torch.no_grad()
def letter_scores(loaded: LoadedAligner, clips: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Log-probabilities float32 [frames of 20 ms, classes] of each clip, from an aligner by letters."""
    device = next(loaded.model.parameters()).device
    batch = to_device(collate([Item(clip, "", "") for clip in clips], loaded.prompt), device)
    with evaluation_mode(loaded.model):
        return _log_probabilities(label_logits(loaded.model, batch).float(), batch)


@torch.no_grad()
def word_times(loaded: LoadedAligner, items: Sequence[Item]) -> list[WordTimes | None]:
    """Of clips with their words, whose times are not read; None if a text has more letters than fit into its clip."""
    device = next(loaded.model.parameters()).device
    batch = to_device(collate(items, loaded.prompt), device)
    with evaluation_mode(loaded.model):
        return times_in(label_logits(loaded.model, batch).float(), items, batch, loaded.prompt)


def times_in(
    outputs: torch.Tensor, items: Sequence[Item], batch: Batch, prompt: AlignerPrompt
) -> list[WordTimes | None]:
    """As `word_times`, from the classifier's outputs for the batch of the items."""
    if isinstance(prompt, LetterPrompt):
        return _by_letters(outputs, items, batch, prompt)
    return list(_by_slots(outputs, items, prompt))


def _by_letters(
    outputs: torch.Tensor, items: Sequence[Item], batch: Batch, prompt: LetterPrompt
) -> list[WordTimes | None]:
    return times_by_letters(_log_probabilities(outputs, batch), items, prompt)


def _log_probabilities(outputs: torch.Tensor, batch: Batch) -> list[np.ndarray]:
    """[frames, classes] of each clip."""
    logits = frame_logits(outputs, batch.audio.tokens)
    joined = torch.cat(logits).log_softmax(dim=1).cpu().numpy()  # one transfer from the device
    return np.split(joined, np.cumsum([len(one) for one in logits])[:-1])


def times_by_letters(
    log_probabilities: Sequence[np.ndarray], items: Sequence[Item], prompt: LetterPrompt
) -> list[WordTimes | None]:
    """From log-probabilities [frames, classes] of each clip; None if a text has more letters than frames."""
    spellings = [[prompt.spelling(word.text) for word in item.words] for item in items]
    found = word_paths(log_probabilities, spellings)
    return [
        None if paths is None else _times(scores, paths, item)
        for scores, paths, item in zip(log_probabilities, found, items, strict=True)
    ]


def _times(log_probabilities: np.ndarray, paths: WordPaths, item: Item) -> WordTimes:
    seconds = len(item.samples) / SAMPLE_RATE
    entropy = float(-(np.exp(log_probabilities) * log_probabilities).sum(axis=1).mean())
    in_clip = (paths.starts.clip(max=seconds), paths.ends.clip(max=seconds))
    return WordTimes(*in_clip, paths.confidence, np.zeros(len(item.words), bool), entropy)


def _by_slots(outputs: torch.Tensor, items: Sequence[Item], prompt: AlignmentPrompt) -> list[WordTimes]:
    times = slot_times(outputs, prompt)
    found = []
    first = 0
    for item in items:
        slots = slice(first, first + 2 * len(item.words))
        first = slots.stop
        ordered = in_order(times.seconds[slots], len(item.samples) / SAMPLE_RATE)
        confidence = times.confidence[slots].reshape(-1, 2).prod(axis=1)
        entropy = float(times.entropy[slots].mean())
        found.append(WordTimes(ordered.starts, ordered.ends, confidence, ordered.repaired, entropy))
    return found
