"""The in-training evaluation: a fixed subset of the validation split, decoded and scored by all processes together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate.utils import gather_object

from caspi.corpus.store import Corpus
from caspi.errors import UsageError
from caspi.inference.engine.engine import Engine, evaluating
from caspi.inference.engine.requests import DecodeRequest
from caspi.language import language
from caspi.model.batch import Item, collate
from caspi.model.config import ModelConfig
from caspi.model.loading import LoadedModel, load
from caspi.model.prompt import Prompt
from caspi.model.tensors import to_device
from caspi.scoring.error_rates import Score, score_corpus
from caspi.training.config import TrainConfig
from caspi.training.data.batch_plan import cut
from caspi.training.data.dataset import TrainingSet
from caspi.training.distributed.processes import compute_dtype, processes
from caspi.training.objectives.cross_entropy import CrossEntropy
from caspi.training.results import Measurement


@dataclass(frozen=True, slots=True)
class _Measured:
    """The decoding result of one utterance."""

    place: int
    hypothesis: str
    truncated: bool


class Validation:
    """Loss per target token, WER and CER, in the compute dtype and without augmentation."""

    def __init__(
        self, corpus: Corpus, prompt: Prompt, config: TrainConfig, dtype: torch.dtype | None, spoken: str
    ) -> None:
        """spoken: the language the model is trained for."""
        self._dtype, self._budget, self._language = dtype, config.budget, spoken
        self._data = TrainingSet.of(corpus, prompt, config.max_seconds)
        if not len(self._data.rows):
            raise UsageError(
                f"corpus {corpus.folder}: no validation utterance is within train.max_seconds = {config.max_seconds}"
            )
        chosen = np.random.default_rng(0).permutation(self._data.rows)[: config.evaluate.utterances]
        self._rows = chosen[np.argsort(self._data.seconds[chosen], kind="stable")]
        self._groups = [corpus.utterance(int(row)).group for row in self._rows]

    def __call__(self, loaded: LoadedModel, give_up: Callable[[], bool] = lambda: False) -> Measurement | None:
        """The same on every process; None on every one where one gave up. A share
        that memory does not hold is cut smaller."""
        state = processes()
        places = range(state.process_index, len(self._rows), state.num_processes)
        while True:
            try:
                items = [self._data.item(int(self._rows[place])) for place in places]
                loss, tokens = self._loss(loaded, self._rows[places.start :: places.step], give_up)
                measured = self._decoded(loaded, items, places, give_up)
                break
            except torch.OutOfMemoryError:
                if self._budget.seconds < 1:
                    raise
                self._budget = self._budget.halved()
                torch.cuda.empty_cache()
        everyone = sorted(gather_object(measured), key=lambda found: found.place)
        if len(everyone) < len(self._rows):
            return None
        sums = gather_object([(loss, tokens)])
        score, by_language = self._scores([found.hypothesis for found in everyone])
        return Measurement(
            loss=sum(value for value, _ in sums) / sum(count for _, count in sums),
            wer=score.wer,
            cer=score.cer,
            truncated=sum(found.truncated for found in everyone) / len(everyone),
            by_language=by_language,
        )

    def _scores(self, hypotheses: list[str]) -> tuple[Score, dict[str, float]]:
        """The score of the language the model is trained for (of all languages if the split has none of it), by which
        checkpoints are ranked; with several languages also the WER of each, by its own rules."""
        spoken = [self._data.languages[row] for row in self._rows.tolist()]
        taught = self._language if self._language in spoken else None
        ranking = self._score(hypotheses, [place for place, name in enumerate(spoken) if taught in (None, name)])
        named = sorted(set(spoken)) if len(set(spoken)) > 1 else []
        each = {name: [place for place, other in enumerate(spoken) if other == name] for name in named}
        return ranking, {name: self._score(hypotheses, places).wer for name, places in each.items()}

    def _score(self, hypotheses: list[str], places: list[int]) -> Score:
        rows = self._rows.tolist()
        return score_corpus(
            [self._data.texts[rows[place]] for place in places],
            [hypotheses[place] for place in places],
            [self._groups[place] for place in places],
            [language(self._data.languages[rows[place]]) for place in places],
        )["leaderboard"]

    def _decoded(
        self, loaded: LoadedModel, items: list[Item], places: range, give_up: Callable[[], bool]
    ) -> list[_Measured]:
        """All results, or those decoded before giving up."""
        engine = Engine(loaded, dtype=self._dtype)
        requests = [DecodeRequest(item.samples, item.context, item.language) for item in items]
        return [
            _Measured(places[number], hypothesis.text, hypothesis.truncated)
            for number, hypothesis in engine.decode_each(requests, give_up)
        ]

    @torch.no_grad()
    def _loss(self, loaded: LoadedModel, rows: np.ndarray, give_up: Callable[[], bool]) -> tuple[float, int]:
        """Cross-entropy summed over the targets of `rows`, and the number of targets."""
        objective = CrossEntropy(loaded.model, self._dtype)
        device = next(loaded.model.parameters()).device
        total, tokens = 0.0, 0
        with evaluating(loaded.model):
            for part in cut(rows, self._data.seconds, self._data.plain.sequence_tokens, self._budget):
                if give_up():
                    break
                batch = collate([self._data.item(int(row)) for row in part], loaded.prompt)
                total += float(objective(to_device(batch, device)))
                tokens += len(batch.labels)
        return total, tokens


def measure_checkpoint(folder: Path, corpus: Path, config: TrainConfig, spoken: str) -> Measurement:
    """What the run itself would measure on a model folder: the same utterances, the same precision."""
    state = processes()
    loaded = load(ModelConfig(start=str(folder)), state.device)
    dtype = compute_dtype(config.precision, state.device)
    measured = Validation(Corpus.open(corpus, "validation"), loaded.prompt, config, dtype, spoken)(loaded)
    assert measured is not None  # no process gave up
    return measured
