"""The in-training evaluation of an aligner: how far its times are from those of the validation split."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from accelerate.utils import gather_object

from caspi.alignment.times import slot_times
from caspi.corpus.store import Corpus
from caspi.errors import UsageError
from caspi.model.aligner import LoadedAligner
from caspi.model.alignment import AlignmentPrompt
from caspi.model.batch import collate
from caspi.model.forward import evaluation_mode, forward_audio, output_weight, sequence_hidden
from caspi.model.tensors import to_device
from caspi.randomness import seeded
from caspi.training.config import TrainConfig
from caspi.training.data.batch_plan import cut
from caspi.training.data.dataset import TrainingSet
from caspi.training.distributed.processes import processes
from caspi.training.results import AlignmentMeasurement

_NEAR_SECONDS = 0.08


class AlignmentValidation:
    """Loss per slot, and shifts of times before any repair, in the compute dtype and without augmentation; all words
    have slots."""

    def __init__(self, corpus: Corpus, prompt: AlignmentPrompt, config: TrainConfig, dtype: torch.dtype | None) -> None:
        self._dtype, self._budget = dtype, config.budget
        self._data = TrainingSet.for_alignment(corpus, prompt, config.max_seconds)
        if not len(self._data.rows):
            raise UsageError(
                f"corpus {corpus.folder}: no validation utterance with times is within train.max_seconds = "
                f"{config.max_seconds}"
            )
        drawn = seeded(0).permutation(self._data.rows)[: config.evaluate.utterances]
        self._rows = drawn[np.argsort(self._data.seconds[drawn], kind="stable")]

    def __call__(
        self, loaded: LoadedAligner, should_stop: Callable[[], bool] = lambda: False
    ) -> AlignmentMeasurement | None:
        """The measurement, the same on every process; None if one of them was stopped."""
        state = processes()
        mine = self._rows[state.process_index :: state.num_processes]
        losses, shifts = self._measured(loaded, mine, should_stop)
        found = gather_object([(losses, shifts, len(mine), should_stop())])
        if any(stopped for *_, stopped in found):
            return None
        every = np.concatenate([part for _, part, _, _ in found], axis=0)
        return AlignmentMeasurement(
            loss=float(np.concatenate([part for part, *_ in found]).mean()),
            start_shift=float(np.abs(every[:, 0]).mean()),
            end_shift=float(np.abs(every[:, 1]).mean()),
            within_80_ms=float((np.abs(every) <= _NEAR_SECONDS).mean()),
        )

    @torch.no_grad()
    def _measured(
        self, loaded: LoadedAligner, rows: np.ndarray, should_stop: Callable[[], bool]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Cross-entropy of every slot; seconds that the start and the end of every word are late, [words, 2]."""
        device = next(loaded.model.parameters()).device
        losses, shifts = [np.zeros(0)], [np.zeros((0, 2))]
        with evaluation_mode(loaded.model), torch.autocast(device.type, self._dtype, enabled=self._dtype is not None):
            for part in cut(rows, self._data.seconds, self._data.plain.sequence_tokens, self._budget):
                if should_stop():
                    break
                items = [self._data.item(int(row)) for row in part]
                batch = to_device(collate(items, loaded.prompt), device)
                hidden = sequence_hidden(loaded.model, forward_audio(loaded.model, batch), batch.sequences)
                logits = torch.nn.functional.linear(hidden, output_weight(loaded.model)).float()
                losses.append(torch.nn.functional.cross_entropy(logits, batch.labels, reduction="none").cpu().numpy())
                true = np.array([time for item in items for word in item.words for time in word[1:]])
                shifts.append((slot_times(logits, loaded.prompt).seconds - true).reshape(-1, 2))
        return np.concatenate(losses), np.concatenate(shifts)
