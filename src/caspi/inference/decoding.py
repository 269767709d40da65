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
MIN_TOKEN_LIMIT = 32


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
def evaluation_mode(model: Qwen3ASRForConditionalGeneration) -> Iterator[None]:
    """The model is in evaluation mode inside the block, and in its previous mode afterwards."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def prefill(
    model: Qwen3ASRForConditionalGeneration, prompt: Prompt, rows: Sequence[list[int]], audio: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings [rows, max_length, width] of token ids, padded on the left, and their mask [rows, max_length]. audio:
    embeddings of the audio tokens [all audio tokens, width]."""
    max_length = max(map(len, rows))
    ids = torch.tensor([[prompt.pad] * (max_length - len(row)) + row for row in rows], device=audio.device)
    lengths = torch.tensor([len(row) for row in rows], device=audio.device)
    mask = (torch.arange(max_length, device=audio.device) >= max_length - lengths[:, None]).long()
    embeddings = model.get_input_embeddings()(ids)
    is_audio = (ids == prompt.audio)[:, :, None].expand_as(embeddings)
    return embeddings.masked_scatter(is_audio, audio.to(embeddings.dtype)), mask


class _StopRequested(StoppingCriteria):  # type: ignore[misc]
    """Stops the decoding of all clips as soon as `should_stop` returns True."""

    def __init__(self, should_stop: Callable[[], bool]) -> None:
        self._should_stop = should_stop

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: Any) -> torch.Tensor:
        return torch.full((len(input_ids),), self._should_stop(), device=input_ids.device)


class Decoder:
    """Decodes lists of clips in batches of similar length, at most `budget` seconds of audio each.

    should_stop: called after every token; decoding stops when it returns True.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        *,
        budget: Seconds = 240.0,
        dtype: torch.dtype | None = None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self._loaded = loaded
        self._budget = budget
        self._device = next(loaded.model.parameters()).device
        self._dtype = dtype
        self._stopping = StoppingCriteriaList([_StopRequested(should_stop)])

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
            evaluation_mode(model),
            torch.autocast(self._device.type, dtype=self._dtype, enabled=self._dtype is not None),
            decoder_attention(model, "sdpa"),
        ):
            embeddings, mask = self._prefill(clips)
            limit = MIN_TOKEN_LIMIT + math.ceil(TOKENS_PER_SECOND_LIMIT * max(clip.seconds for clip in clips))
            tokens = model.generate(
                inputs_embeds=embeddings,
                attention_mask=mask,
                max_new_tokens=limit,
                do_sample=False,
                eos_token_id=prompt.end,
                pad_token_id=prompt.pad,
                stopping_criteria=self._stopping,
            )
        return [self._parse(clip, row) for clip, row in zip(clips, tokens.tolist(), strict=True)]

    def _prefill(self, clips: Sequence[DecodeRequest]) -> tuple[torch.Tensor, torch.Tensor]:
        """Prompt embeddings [clips, longest, width], padded on the left, and their mask [clips, longest]."""
        model, prompt = self._loaded.model, self._loaded.prompt
        audio = to_device(AudioBatch.of(*pad_clips([clip.samples for clip in clips])), self._device)
        rows = []
        for clip, count in zip(clips, audio.tokens, strict=True):
            language_tokens = prompt.language_prefix(clip.language) if clip.language else []
            rows.append(prompt.prefix(count, clip.context) + language_tokens)
        return prefill(model, prompt, rows, encode(model, audio))

    def _parse(self, clip: DecodeRequest, tokens: list[int]) -> Hypothesis:
        prompt = self._loaded.prompt
        language_tokens = prompt.language_prefix(clip.language) if clip.language else []
        language, text = prompt.parse(language_tokens + tokens)
        return Hypothesis(text, language, truncated=prompt.end not in tokens)
