"""Training on the model's own hypotheses: they are sampled and scored against the transcript; those better than average
become more likely, the others less."""

from __future__ import annotations

import numpy as np
import torch
from rapidfuzz.distance import Levenshtein

from caspi.inference.sampling import sample_hypotheses
from caspi.language import language
from caspi.language.codes import NO_SPEECH
from caspi.model.batch import Batch, TargetText, pack
from caspi.model.compiling import uncompiled
from caspi.model.forward import Model, forward_audio, sequence_hidden
from caspi.model.prompt import Example, Prompt
from caspi.model.tensors import to_device
from caspi.model.timestamps import without_times
from caspi.randomness import generator
from caspi.training.objective_config import SequenceObjective
from caspi.training.objectives.base import Objective
from caspi.training.objectives.fused_loss import SoftTargets

_SPREAD = 1e-6
_LONGER = 12  # tokens by which a hypothesis may be longer than the transcript


class GroupRelativePolicy(Objective):
    """Group-relative policy gradient (GRPO, Shao et al. 2024, arXiv:2402.03300, equation 3). Each hypothesis is used
    once, so there is no clipping; a hypothesis counts by the mean over its tokens, as in GSPO (Zheng et al. 2025,
    arXiv:2507.18071). The reward is minus the normalised word edit distance after the fair normaliser, without times.

    A divergence keeps the model near the stage's initial model, the reference: KL(reference || model) over the whole
    vocabulary at the sampled tokens. GRPO uses the other direction and an estimate. This one needs only what the head
    computes anyway, and penalises the model for every unlikely token that the reference finds likely. Both models get
    the same audio, masks included. A share of cross-entropy keeps the model near the transcript.

    reference: from `load_frozen`, None if `how.kl` is 0. Seed, epoch and row determine the sampled hypotheses.
    """

    def __init__(
        self,
        model: Model,
        compute_dtype: torch.dtype | None,
        how: SequenceObjective,
        prompt: Prompt,
        reference: Model | None,
        seed: int,
    ) -> None:
        super().__init__(model, compute_dtype)
        self._how, self._prompt, self._reference, self._seed = how, prompt, (reference,), seed

    def loss(self, batch: Batch) -> torch.Tensor:
        audio = forward_audio(self.model, batch)
        drawn = self._draw(batch, audio.detach())
        examples, clips, weights, soft_weights = self._weighted(batch, drawn)
        sequences = to_device(pack(examples, self._prompt), audio.device)
        ends = np.cumsum([0, *batch.audio.tokens])
        order = np.concatenate([np.arange(ends[clip], ends[clip + 1]) for clip in clips])
        again = torch.from_numpy(order).to(audio.device)
        hidden = sequence_hidden(self.model, audio[again], sequences)
        soft = None
        [reference] = self._reference
        if reference is not None:
            with torch.no_grad():
                reference_audio = forward_audio(reference, batch)
                reference_hidden = sequence_hidden(reference, reference_audio[again], sequences)
            soft = SoftTargets(reference_hidden, reference.lm_head.weight, soft_weights.to(audio.device))
        found: torch.Tensor = self.head(hidden, sequences.labels, weights.to(audio.device), soft)
        if reference is not None:
            self.note("kl", self.head.soft_part / self._how.kl, float(soft_weights.sum()) / self._how.kl)
        self.note("policy_and_cross_entropy", found.detach() - self.head.soft_part, len(batch.labels))
        return found

    def _draw(self, batch: Batch, audio: torch.Tensor) -> list[list[list[int]]]:
        """The hypotheses of every clip, as token ids after the language."""
        count, rows, limits, draws = self._how.hypotheses, [], [], []
        for item, row in zip(batch.items, batch.rows, strict=True):
            rows.append(self._asked(item))
            limits.append(len(item.example.target) + _LONGER)  # anything longer is wrong in any case
            draw = generator(self._seed, batch.epoch, row, "hypotheses")
            draws.append(draw.random((count, limits[-1]), dtype=np.float32))
        with torch.no_grad(), uncompiled():
            sampled = sample_hypotheses(self.model, self._prompt, rows, audio, draws, self._compute_dtype)
        return [[tokens[:limit] for tokens in some] for some, limit in zip(sampled, limits, strict=True)]

    def _asked(self, item: TargetText) -> list[int]:
        return item.example.prompt + self._prompt.language_prefix(item.language)

    def _weighted(
        self, batch: Batch, drawn: list[list[list[int]]]
    ) -> tuple[list[Example], list[int], torch.Tensor, torch.Tensor]:
        """Transcripts and hypotheses as sequences, the clip of each, and two weights of each label: of its
        cross-entropy, and of the divergence from the reference."""
        examples, clips, weights, soft = [], [], [], []
        for clip, (item, hypotheses) in enumerate(zip(batch.items, drawn, strict=True)):
            target = item.example.target
            examples.append(item.example)
            clips.append(clip)
            weights.append(np.full(len(target), self._how.cross_entropy))
            soft.append(np.zeros(len(target)))
            if item.language == NO_SPEECH:  # no words to score hypotheses against: only the transcript
                continue
            for tokens, share, advantage in self._advantages(item, hypotheses):
                if not advantage and not self._how.kl:
                    continue
                examples.append(Example(self._asked(item), list(tokens)))
                clips.append(clip)
                # Together as much weight as the transcript's tokens, whatever the hypothesis' length.
                each = np.full(len(tokens), len(target) / len(tokens))
                weights.append(advantage * each)
                soft.append(self._how.kl * share * each)
        return (
            examples,
            clips,
            torch.from_numpy(np.concatenate(weights)).float(),
            torch.from_numpy(np.concatenate(soft)).float(),
        )

    def _advantages(self, item: TargetText, hypotheses: list[list[int]]) -> list[tuple[tuple[int, ...], float, float]]:
        """Each distinct hypothesis, its share of the samples, and its advantage times that share."""
        normalise = language(item.language).normalisers["fair"]
        forced = self._prompt.language_prefix(item.language)

        def words(text: str) -> list[str]:
            return normalise(without_times(text)).split()

        kinds = [tuple(tokens) for tokens in hypotheses]
        rewards = {
            kind: -Levenshtein.normalized_distance(words(item.text), words(self._prompt.parse([*forced, *kind])[1]))
            for kind in set(kinds)
        }
        got = np.array([rewards[kind] for kind in kinds])
        spread = got.std()
        self.note("reward", float(got.mean()), 1)
        self.note("reward_spread", float(spread), 1)
        self.note("no_spread", float(spread < _SPREAD), 1)
        self.note("hypothesis_tokens", sum(map(len, kinds)) / len(kinds), 1)
        found = []
        for kind in dict.fromkeys(kinds):
            share = kinds.count(kind) / len(kinds)
            advantage = 0.0 if spread < _SPREAD else float((rewards[kind] - got.mean()) / spread)
            found.append((kind, share, advantage * share))
        return found
