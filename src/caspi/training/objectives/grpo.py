"""Training on hypotheses sampled from the model and scored against the transcript: those better than average become
more likely, the others less likely."""

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

_MIN_STD = 1e-6
_MAX_EXTRA_TOKENS = 12  # tokens by which a hypothesis may be longer than the transcript


class GroupRelativePolicy(Objective):
    """Group-relative policy gradient (GRPO, Shao et al. 2024, arXiv:2402.03300, equation 3). Each hypothesis is used
    once, so there is no clipping; the loss of a hypothesis is the mean over its tokens, as in GSPO (Zheng et al. 2025,
    arXiv:2507.18071). The reward is minus the normalised word edit distance after the fair normaliser, without times.

    A divergence keeps the model near the stage's initial model, the reference: KL(reference || model) over the whole
    vocabulary at the sampled tokens. GRPO uses the other direction and an estimate. This direction needs only logits
    that are computed anyway, and penalises low probabilities of tokens that the reference finds likely. Both models get
    the same audio, masks included. A share of cross-entropy keeps the model near the transcript.

    reference: from `load_frozen`, None if `config.kl` is 0. Seed, epoch and row determine the sampled hypotheses.
    """

    def __init__(
        self,
        model: Model,
        compute_dtype: torch.dtype | None,
        config: SequenceObjective,
        prompt: Prompt,
        reference: Model | None,
        seed: int,
    ) -> None:
        super().__init__(model, compute_dtype)
        self._config, self._prompt, self._reference, self._seed = config, prompt, (reference,), seed

    def loss(self, batch: Batch) -> torch.Tensor:
        audio = forward_audio(self.model, batch)
        hypotheses_of_clips = self._sample(batch, audio.detach())
        examples, clips, weights, soft_weights = self._weighted(batch, hypotheses_of_clips)
        sequences = to_device(pack(examples, self._prompt), audio.device)
        ends = np.cumsum([0, *batch.audio.tokens])
        order = np.concatenate([np.arange(ends[clip], ends[clip + 1]) for clip in clips])
        audio_index = torch.from_numpy(order).to(audio.device)
        hidden = sequence_hidden(self.model, audio[audio_index], sequences)
        soft = None
        [reference] = self._reference
        if reference is not None:
            with torch.no_grad():
                reference_audio = forward_audio(reference, batch)
                reference_hidden = sequence_hidden(reference, reference_audio[audio_index], sequences)
            soft = SoftTargets(reference_hidden, reference.lm_head.weight, soft_weights.to(audio.device))
        loss: torch.Tensor = self.head(hidden, sequences.labels, weights.to(audio.device), soft)
        if reference is not None:
            self.add_metric("kl", self.head.soft_part / self._config.kl, float(soft_weights.sum()) / self._config.kl)
        self.add_metric("policy_and_cross_entropy", loss.detach() - self.head.soft_part, len(batch.labels))
        return loss

    def _sample(self, batch: Batch, audio: torch.Tensor) -> list[list[list[int]]]:
        """The hypotheses of every clip, as token ids after the language."""
        count, rows, limits, random_numbers = self._config.hypotheses, [], [], []
        for item, row in zip(batch.items, batch.rows, strict=True):
            rows.append(self._decoder_prompt(item))
            limits.append(len(item.example.target) + _MAX_EXTRA_TOKENS)  # anything longer is wrong in any case
            rng = generator(self._seed, batch.epoch, row, "hypotheses")
            random_numbers.append(rng.random((count, limits[-1]), dtype=np.float32))
        with torch.no_grad(), uncompiled():
            sampled = sample_hypotheses(self.model, self._prompt, rows, audio, random_numbers, self._compute_dtype)
        return [[tokens[:limit] for tokens in of_clip] for of_clip, limit in zip(sampled, limits, strict=True)]

    def _decoder_prompt(self, item: TargetText) -> list[int]:
        return item.example.prompt + self._prompt.language_prefix(item.language)

    def _weighted(
        self, batch: Batch, hypotheses_of_clips: list[list[list[int]]]
    ) -> tuple[list[Example], list[int], torch.Tensor, torch.Tensor]:
        """Transcripts and hypotheses as sequences, the clip of each, and two weights of each label: of its
        cross-entropy, and of the divergence from the reference."""
        examples, clips, weights, soft = [], [], [], []
        for clip, (item, hypotheses) in enumerate(zip(batch.items, hypotheses_of_clips, strict=True)):
            target = item.example.target
            examples.append(item.example)
            clips.append(clip)
            weights.append(np.full(len(target), self._config.cross_entropy))
            soft.append(np.zeros(len(target)))
            if item.language == NO_SPEECH:  # no words to score hypotheses against: only the transcript
                continue
            for tokens, share, advantage in self._advantages(item, hypotheses):
                if not advantage and not self._config.kl:
                    continue
                examples.append(Example(self._decoder_prompt(item), list(tokens)))
                clips.append(clip)
                # Together the tokens have the weight of the transcript's tokens, for any length of the hypothesis.
                token_weights = np.full(len(tokens), len(target) / len(tokens))
                weights.append(advantage * token_weights)
                soft.append(self._config.kl * share * token_weights)
        return (
            examples,
            clips,
            torch.from_numpy(np.concatenate(weights)).float(),
            torch.from_numpy(np.concatenate(soft)).float(),
        )

    def _advantages(self, item: TargetText, hypotheses: list[list[int]]) -> list[tuple[tuple[int, ...], float, float]]:
        """Each distinct hypothesis, its share of the samples, and its advantage times that share."""
        normalise = language(item.language).normalisers["fair"]
        language_tokens = self._prompt.language_prefix(item.language)

        def words(text: str) -> list[str]:
            return normalise(without_times(text)).split()

        sampled = [tuple(tokens) for tokens in hypotheses]
        rewards = {
            hypothesis: -Levenshtein.normalized_distance(
                words(item.text), words(self._prompt.parse([*language_tokens, *hypothesis])[1])
            )
            for hypothesis in set(sampled)
        }
        sample_rewards = np.array([rewards[hypothesis] for hypothesis in sampled])
        std = sample_rewards.std()
        self.add_metric("reward", float(sample_rewards.mean()), 1)
        self.add_metric("reward_spread", float(std), 1)
        self.add_metric("no_spread", float(std < _MIN_STD), 1)
        self.add_metric("hypothesis_tokens", sum(map(len, sampled)) / len(sampled), 1)
        advantages = []
        for hypothesis in dict.fromkeys(sampled):
            share = sampled.count(hypothesis) / len(sampled)
            advantage = 0.0 if std < _MIN_STD else float((rewards[hypothesis] - sample_rewards.mean()) / std)
            advantages.append((hypothesis, share, advantage * share))
        return advantages
