"""Batched greedy decoding of clips that fit the model in one pass."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import Qwen3ASRForConditionalGeneration, StoppingCriteria, StoppingCriteriaList

from caspi.audio import SAMPLE_RATE, Seconds
from caspi.model.attention import decoder_attention
from caspi.model.batch import AudioBatch
from caspi.model.features import pad_clips
from caspi.model.forward import encode
from caspi.model.loading import LoadedModel
from caspi.model.prompt import Prompt
from caspi.model.tensors import to_device

# More than anyone can speak: Hebrew has about 4.4 tokens per second with the released tokenizer, 15 letter by letter.
TOKENS_PER_SECOND_LIMIT = 25
TOKENS_AT_LEAST = 32


@dataclass(frozen=True, slots=True)
class DecodeRequest:
    """A clip to transcribe. A given language is prefilled; without one, the model identifies it."""

    samples: np.ndarray
    context: str = ""
    language: str | None = None

    @property
    def seconds(self) -> Seconds:
        return len(self.samples) / SAMPLE_RATE


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """truncated: the token limit was reached before the end of turn. retried: it was reached, and the clip was split.
    silent: there was nothing to decode."""

    text: str
    language: str | None
    truncated: bool
    retried: bool = False
    silent: bool = False


@contextlib.contextmanager
def evaluating(model: Qwen3ASRForConditionalGeneration) -> Iterator[None]:
    """Evaluation mode inside the block; restores the previous mode afterwards, also after an exception."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def prefill(
    model: Qwen3ASRForConditionalGeneration, prompt: Prompt, rows: Sequence[list[int]], audio: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings [rows, longest, width] of token ids, padded on the left, and their mask [rows, longest]. audio: the
    embeddings of the audio tokens [all audio tokens, width]."""
    longest = max(map(len, rows))
    ids = torch.tensor([[prompt.pad] * (longest - len(row)) + row for row in rows], device=audio.device)
    lengths = torch.tensor([len(row) for row in rows], device=audio.device)
    mask = (torch.arange(longest, device=audio.device) >= longest - lengths[:, None]).long()
    embeddings = model.get_input_embeddings()(ids)
    where = (ids == prompt.audio)[:, :, None].expand_as(embeddings)
    return embeddings.masked_scatter(where, audio.to(embeddings.dtype)), mask


class _GivenUp(StoppingCriteria):  # type: ignore[misc]
    """Stops decoding of all clips as soon as `asked` returns True."""

    def __init__(self, asked: Callable[[], bool]) -> None:
        self._asked = asked

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: Any) -> torch.Tensor:
        return torch.full((len(input_ids),), self._asked(), device=input_ids.device)


class Decoder:
    """Decodes lists of clips in batches of similar length, at most `budget` seconds of audio each.

    give_up: called after every token; when it returns True, decoding stops there.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        *,
        budget: Seconds = 240.0,
        dtype: torch.dtype | None = None,
        give_up: Callable[[], bool] = lambda: False,
    ) -> None:
        self._loaded = loaded
        self._budget = budget
        self._device = next(loaded.model.parameters()).device
        self._dtype = dtype
        self._stopping = StoppingCriteriaList([_GivenUp(give_up)])

    def decode(self, clips: Sequence[DecodeRequest]) -> list[Hypothesis]:
        """Hypotheses in the order of the clips."""
        results = dict(itertools.chain.from_iterable(self.decode_each(clips)))
        return [results[index] for index in range(len(clips))]

    def decode_each(self, clips: Sequence[DecodeRequest]) -> Iterator[list[tuple[int, Hypothesis]]]:
        """Yields batches of hypotheses with the index of their clip, for callers that may stop in between."""
        order = sorted(range(len(clips)), key=lambda index: len(clips[index].samples))
        batch: list[int] = []
        for index in order:
            if batch and (len(batch) + 1) * clips[index].seconds > self._budget:
                yield list(zip(batch, self._decode_batch([clips[i] for i in batch]), strict=True))
                batch = []
            batch.append(index)
        if batch:
            yield list(zip(batch, self._decode_batch([clips[i] for i in batch]), strict=True))

    @torch.inference_mode()
    def _decode_batch(self, clips: Sequence[DecodeRequest]) -> list[Hypothesis]:
        model, prompt = self._loaded.model, self._loaded.prompt
        with (
            evaluating(model),
            torch.autocast(self._device.type, dtype=self._dtype, enabled=self._dtype is not None),
            decoder_attention(model, "sdpa"),
        ):
            embeddings, mask = self._prefill(clips)
            limit = TOKENS_AT_LEAST + math.ceil(TOKENS_PER_SECOND_LIMIT * max(clip.seconds for clip in clips))
            tokens = model.generate(
                inputs_embeds=embeddings,
                attention_mask=mask,
                max_new_tokens=limit,
                do_sample=False,
                eos_token_id=prompt.end,
                pad_token_id=prompt.pad,
                stopping_criteria=self._stopping,
            )
        return [self._read(clip, row) for clip, row in zip(clips, tokens.tolist(), strict=True)]

    def _prefill(self, clips: Sequence[DecodeRequest]) -> tuple[torch.Tensor, torch.Tensor]:
        """Prompt embeddings [clips, longest, width], padded on the left, and their mask [clips, longest]."""
        model, prompt = self._loaded.model, self._loaded.prompt
        audio = to_device(AudioBatch.of(*pad_clips([clip.samples for clip in clips])), self._device)
        rows = []
        for clip, count in zip(clips, audio.tokens, strict=True):
            forced = prompt.language_prefix(clip.language) if clip.language else []
            rows.append(prompt.prefix(count, clip.context) + forced)
        return prefill(model, prompt, rows, encode(model, audio))

    def _read(self, clip: DecodeRequest, tokens: list[int]) -> Hypothesis:
        prompt = self._loaded.prompt
        forced = prompt.language_prefix(clip.language) if clip.language else []
        language, text = prompt.parse(forced + tokens)
        return Hypothesis(text, language, truncated=prompt.end not in tokens)
