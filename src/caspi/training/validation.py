"""The in-training evaluation: a fixed subset of the validation split, decoded and scored by all processes together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from accelerate.utils import gather_object

from caspi.corpus.read_ahead import read_ahead
from caspi.corpus.store import Corpus
from caspi.errors import UsageError
from caspi.inference.engine.engine import Engine
from caspi.inference.engine.requests import DecodeRequest
from caspi.language import language
from caspi.model.aligner import load_aligner
from caspi.model.batch import AnyPrompt, Item, collate
from caspi.model.config import ModelConfig
from caspi.model.forward import evaluation_mode
from caspi.model.loading import LoadedModel, load
from caspi.model.prompt import Prompt
from caspi.model.tensors import to_device
from caspi.randomness import seeded
from caspi.scoring.edits import Counts, count
from caspi.scoring.error_rates import rate
from caspi.training.alignment_validation import AlignmentValidation
from caspi.training.config import TrainConfig
from caspi.training.data.batch_plan import cut
from caspi.training.data.dataset import TrainingSet
from caspi.training.distributed.processes import compute_dtype, processes
from caspi.training.objectives.cross_entropy import CrossEntropy
from caspi.training.results import AnyMeasurement, Measurement


@dataclass(frozen=True, slots=True)
class _Result:
    """The decoding result of one utterance. row: of the corpus."""

    row: int
    hypothesis: str
    truncated: bool


class Validation:
    """Loss per target token, WER and CER, in the compute dtype and without augmentation."""

    def __init__(
        self, corpus: Corpus, prompt: Prompt, config: TrainConfig, dtype: torch.dtype | None, language_name: str
    ) -> None:
        """language_name: the language that the model is trained for."""
        self._dtype, self._budget, self._language = dtype, config.budget, language_name
        self._data = TrainingSet.of(corpus, prompt, config.max_seconds)
        if not len(self._data.rows):
            raise UsageError(
                f"corpus {corpus.folder}: no validation utterance is within train.max_seconds = {config.max_seconds}"
            )
        drawn = seeded(0).permutation(self._data.rows)[: config.evaluate.utterances]
        self._rows = drawn[np.argsort(self._data.seconds[drawn], kind="stable")]
        names = [corpus.utterance(int(row)).group for row in self._rows]
        numbers = {name: number for number, name in enumerate(sorted(set(names)))}
        self._groups = [numbers[name] for name in names]

    def __call__(self, loaded: LoadedModel, should_stop: Callable[[], bool] = lambda: False) -> Measurement | None:
        """The measurement, the same on every process; None if one of them was stopped. Batches that do not fit into
        memory are made smaller."""
        state = processes()
        rows = self._rows[state.process_index :: state.num_processes].tolist()
        items = dict(zip(rows, read_ahead(self._data.item, rows), strict=True))
        while True:
            try:
                loss, tokens = self._loss(loaded, items, should_stop)
                measured = self._decoded(loaded, items, should_stop)
                break
            except torch.OutOfMemoryError:
                if self._budget.seconds < 1:
                    raise
                self._budget = self._budget.halved()
                torch.cuda.empty_cache()
        results = {result.row: result for result in gather_object(measured)}
        if len(results) < len(self._rows):
            return None
        hypotheses = [results[row].hypothesis for row in self._rows.tolist()]
        sums = gather_object([(loss, tokens)])
        counts, groups, by_language = self._counts(hypotheses)
        return Measurement(
            loss=sum(value for value, _ in sums) / sum(count for _, count in sums),
            wer=rate(counts),
            cer=int(counts.character_errors.sum()) / max(1, int(counts.characters.sum())),
            truncated=sum(result.truncated for result in results.values()) / len(results),
            by_language=by_language,
            errors=tuple(counts.errors.tolist()),
            words=tuple(counts.words.tolist()),
            groups=groups,
        )

    def _counts(self, hypotheses: list[str]) -> tuple[Counts, tuple[int, ...], dict[str, float]]:
        """The errors in the language the model is trained for (in all languages if the split has none of it), by which
        checkpoints are ranked, and the groups of these utterances; with several languages also the WER of each, by its
        own rules."""
        languages = [self._data.languages[row] for row in self._rows.tolist()]
        target = self._language if self._language in languages else None
        ranking = [index for index, name in enumerate(languages) if target in (None, name)]
        several = sorted(set(languages)) if len(set(languages)) > 1 else []
        indices_by_language = {
            name: [index for index, other in enumerate(languages) if other == name] for name in several
        }
        groups = tuple(self._groups[index] for index in ranking)
        rates = {name: rate(self._count(hypotheses, indices)) for name, indices in indices_by_language.items()}
        return self._count(hypotheses, ranking), groups, rates

    def _count(self, hypotheses: list[str], indices: list[int]) -> Counts:
        rows = self._rows.tolist()
        normalise = [language(self._data.languages[rows[index]]).normalisers["leaderboard"] for index in indices]
        return count(
            [rules(self._data.texts[rows[index]]) for rules, index in zip(normalise, indices, strict=True)],
            [rules(hypotheses[index]) for rules, index in zip(normalise, indices, strict=True)],
        )

    def _decoded(self, loaded: LoadedModel, items: dict[int, Item], should_stop: Callable[[], bool]) -> list[_Result]:
        """The results of all utterances, or of those decoded before the stop."""
        engine, rows = Engine(loaded, dtype=self._dtype), list(items)
        requests = [DecodeRequest(item.samples, item.context, item.language) for item in items.values()]
        return [
            _Result(rows[number], hypothesis.text, hypothesis.truncated)
            for number, hypothesis in engine.decode_each(requests, should_stop)
        ]

    @torch.no_grad()
    def _loss(self, loaded: LoadedModel, items: dict[int, Item], should_stop: Callable[[], bool]) -> tuple[float, int]:
        """Cross-entropy summed over the targets of the items, and the number of targets."""
        objective = CrossEntropy(loaded.model, self._dtype)
        device = next(loaded.model.parameters()).device
        total, tokens = 0.0, 0
        with evaluation_mode(loaded.model):
            for part in cut(np.array(list(items)), self._data.seconds, self._data.plain.sequence_tokens, self._budget):
                if should_stop():
                    break
                batch = collate([items[row] for row in part.tolist()], loaded.prompt)
                total += float(objective(to_device(batch, device)))
                tokens += len(batch.labels)
        return total, tokens


AnyValidation: TypeAlias = Validation | AlignmentValidation


def validation_for(
    corpus: Corpus,
    prompt: AnyPrompt,
    config: TrainConfig,
    dtype: torch.dtype | None,
    language_name: str,
) -> AnyValidation:
    """The in-training evaluation for the task that the prompt is of."""
    if not isinstance(prompt, Prompt):
        return AlignmentValidation(corpus, prompt, config, dtype)
    return Validation(corpus, prompt, config, dtype, language_name)


def measure_checkpoint(start: ModelConfig, corpus: Path, config: TrainConfig, language_name: str) -> AnyMeasurement:
    """The in-training evaluation of a model folder: the same utterances and precision as in the run."""
    state = processes()
    loaded: Any = load_aligner(start, state.device) if start.task == "align" else load(start, state.device)
    dtype = compute_dtype(config.precision, state.device)
    measured = validation_for(Corpus.open(corpus, "validation"), loaded.prompt, config, dtype, language_name)(loaded)
    assert measured is not None  # no process was stopped
    return measured
