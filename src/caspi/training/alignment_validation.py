"""The in-training evaluation of an aligner: how far its times are from those of the validation split."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from accelerate.utils import gather_object
from torch.nn.functional import cross_entropy

from caspi.alignment.timing import times_in
from caspi.corpus.store import Corpus
from caspi.errors import UsageError
from caspi.model.aligner import LoadedAligner
from caspi.model.batch import AlignerPrompt, collate
from caspi.model.forward import evaluation_mode, label_logits
from caspi.model.tensors import to_device
from caspi.randomness import seeded
from caspi.training.config import TrainConfig
from caspi.training.data.batch_plan import cut
from caspi.training.data.dataset import TrainingSet
from caspi.training.distributed.processes import processes
from caspi.training.results import AlignmentMeasurement

_NEAR_SECONDS = 0.08


class AlignmentValidation:
    """Loss per slot or frame, and shifts of times, in the compute dtype, without augmentation, all words with slots."""

    def __init__(self, corpus: Corpus, prompt: AlignerPrompt, config: TrainConfig, dtype: torch.dtype | None) -> None:
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
        found = gather_object([(*self._measured(loaded, mine, should_stop), should_stop())])
        if any(stopped for *_, stopped in found):
            return None
        every = np.concatenate([shifts for _, _, shifts, _ in found], axis=0)
        return AlignmentMeasurement(
            loss=sum(loss for loss, *_ in found) / sum(labels for _, labels, *_ in found),
            start_shift=float(np.abs(every[:, 0]).mean()),
            end_shift=float(np.abs(every[:, 1]).mean()),
            within_80_ms=float((np.abs(every) <= _NEAR_SECONDS).mean()),
        )

    @torch.no_grad()
    def _measured(
        self, loaded: LoadedAligner, rows: np.ndarray, should_stop: Callable[[], bool]
    ) -> tuple[float, int, np.ndarray]:
        """Cross-entropy summed over labels, their number, and the seconds that the start and the end of every word are
        late, [words, 2]."""
        device = next(loaded.model.parameters()).device
        loss, labels = 0.0, 0
        shifts = [np.zeros((0, 2))]
        with evaluation_mode(loaded.model):
            for part in cut(rows, self._data.seconds, self._data.plain.sequence_tokens, self._budget):
                if should_stop():
                    break
                items = [self._data.item(int(row)) for row in part]
                batch = to_device(collate(items, loaded.prompt), device)
                with torch.autocast(device.type, self._dtype, enabled=self._dtype is not None):
                    outputs = label_logits(loaded.model, batch).float()
                # Of letters, each position has several labels.
                loss += float(cross_entropy(outputs.view(len(batch.labels), -1), batch.labels, reduction="sum"))
                labels += int((batch.labels >= 0).sum())
                found = times_in(outputs, items, batch, loaded.prompt)
                for item, times in zip(items, found, strict=True):
                    assert times is not None  # texts that do not fit into their clips are not in the set
                    true = np.array([word[1:] for word in item.words])
                    shifts.append(np.stack([times.starts, times.ends], axis=1) - true)
        return loss, labels, np.concatenate(shifts)
