"""Samples hypotheses from a model; the same random numbers give the same result, in any batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from transformers import LogitsProcessor, LogitsProcessorList, Qwen3ASRForConditionalGeneration

from caspi.inference.decoding import evaluation_mode, prefill
from caspi.model.attention import decoder_attention
from caspi.model.prompt import Prompt


class _InverseTransform(LogitsProcessor):  # type: ignore[misc]
    """Inverse transform sampling: keeps the token at which the cumulative distribution passes the random number."""

    def __init__(self, uniforms: torch.Tensor) -> None:
        self._uniforms = uniforms

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        cumulative = scores.double().softmax(dim=1).cumsum(dim=1)
        threshold = self._uniforms[:, input_ids.shape[1], None] * cumulative[:, -1:]
        token = (cumulative <= threshold).sum(dim=1, keepdim=True).clamp(max=scores.shape[1] - 1)
        return torch.full_like(scores, -torch.inf).scatter_(1, token, 0.0)


def sample_hypotheses(
    model: Qwen3ASRForConditionalGeneration,
    prompt: Prompt,
    rows: Sequence[list[int]],
    audio: torch.Tensor,
    random_numbers: Sequence[np.ndarray],
) -> list[list[list[int]]]:
    """Samples continuations of every row of token ids: token ids up to the end of turn, or as many as the longest
    row has random numbers. random_numbers: for every row, uniform [hypotheses, tokens]. audio: embeddings [all audio
    tokens, width]."""
    embeddings, mask = prefill(model, prompt, rows, audio)
    count, max_tokens = len(random_numbers[0]), max(numbers_of_row.shape[1] for numbers_of_row in random_numbers)
    uniforms = np.full((len(rows) * count, max_tokens), 0.5)
    for index, numbers_of_row in enumerate(random_numbers):
        uniforms[index * count : (index + 1) * count, : numbers_of_row.shape[1]] = numbers_of_row
    with evaluation_mode(model), decoder_attention(model, "sdpa"):
        tokens = model.generate(
            inputs_embeds=embeddings.repeat_interleave(count, dim=0),
            attention_mask=mask.repeat_interleave(count, dim=0),
            max_new_tokens=max_tokens,
            do_sample=False,
            eos_token_id=prompt.end,
            pad_token_id=prompt.pad,
            logits_processor=LogitsProcessorList([_InverseTransform(torch.from_numpy(uniforms).to(audio.device))]),
        ).tolist()
    hypotheses = [row[: row.index(prompt.end) + 1] if prompt.end in row else row for row in tokens]
    return [hypotheses[index : index + count] for index in range(0, len(hypotheses), count)]
