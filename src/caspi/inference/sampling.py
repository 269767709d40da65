"""Samples hypotheses from a model; the same random numbers give the same result, in any batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from transformers import LogitsProcessor, LogitsProcessorList, Qwen3ASRForConditionalGeneration

from caspi.inference.decoding import evaluating, prefill
from caspi.model.attention import decoder_attention
from caspi.model.prompt import Prompt


class _ByNumbers(LogitsProcessor):  # type: ignore[misc]
    """Keeps one token: where the cumulative distribution passes the random number of this position."""

    def __init__(self, numbers: torch.Tensor) -> None:
        self._numbers = numbers

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        below = scores.double().softmax(dim=1).cumsum(dim=1)
        wanted = self._numbers[:, input_ids.shape[1], None] * below[:, -1:]
        token = (below <= wanted).sum(dim=1, keepdim=True).clamp(max=scores.shape[1] - 1)
        return torch.full_like(scores, -torch.inf).scatter_(1, token, 0.0)


def sample_hypotheses(
    model: Qwen3ASRForConditionalGeneration,
    prompt: Prompt,
    rows: Sequence[list[int]],
    audio: torch.Tensor,
    draws: Sequence[np.ndarray],
) -> list[list[list[int]]]:
    """For every row of token ids, one continuation per row of its draws (uniform, [hypotheses, tokens]): token ids up
    to the end of turn, or to the end of the longest draws. audio: embeddings [all audio tokens, width]."""
    embeddings, mask = prefill(model, prompt, rows, audio)
    count, longest = len(draws[0]), max(draw.shape[1] for draw in draws)
    numbers = np.full((len(rows) * count, longest), 0.5)
    for place, draw in enumerate(draws):
        numbers[place * count : (place + 1) * count, : draw.shape[1]] = draw
    with evaluating(model), decoder_attention(model, "sdpa"):
        tokens = model.generate(
            inputs_embeds=embeddings.repeat_interleave(count, dim=0),
            attention_mask=mask.repeat_interleave(count, dim=0),
            max_new_tokens=longest,
            do_sample=False,
            eos_token_id=prompt.end,
            pad_token_id=prompt.pad,
            logits_processor=LogitsProcessorList([_ByNumbers(torch.from_numpy(numbers).to(audio.device))]),
        ).tolist()
    ended = [row[: row.index(prompt.end) + 1] if prompt.end in row else row for row in tokens]
    return [ended[place : place + count] for place in range(0, len(ended), count)]
