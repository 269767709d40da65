"""Samples hypotheses from a model; the same random numbers give the same result, in any batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from transformers import Qwen3ASRForConditionalGeneration

from caspi.inference.engine.generator import Generator, GeneratorOptions
from caspi.inference.engine.network import Network
from caspi.inference.engine.packing import PromptJob
from caspi.inference.engine.weights import DecoderWeights
from caspi.model.prompt import Prompt


def sample_hypotheses(
    model: Qwen3ASRForConditionalGeneration,
    prompt: Prompt,
    rows: Sequence[list[int]],
    audio: torch.Tensor,
    draws: Sequence[np.ndarray],
    dtype: torch.dtype | None = None,
) -> list[list[list[int]]]:
    """For every row of token ids, one continuation per row of its draws (uniform, [hypotheses, tokens]): token ids up
    to the end of turn, or to the end of its draws. audio: embeddings [all audio tokens, width]. dtype: of the
    computation; None: that of the weights."""
    longest = max(len(row) + draw.shape[1] for row, draw in zip(rows, draws, strict=True))
    weights = DecoderWeights.of(model, dtype or model.lm_head.weight.dtype, longest)
    usual = GeneratorOptions.for_device(audio.device)
    copies = [len(draw) for draw in draws]
    positions = sum(n * (len(row) + draw.shape[1]) for n, row, draw in zip(copies, rows, draws, strict=True))
    # No graphs: capturing them takes longer than the few steps of one micro-batch.
    options = replace(usual, rows=max(*copies, min(usual.rows, sum(copies))), positions=positions + 1, graphs=False)
    generator = Generator(Network.of(weights), prompt, options)
    clips = torch.split(audio, [row.count(prompt.audio) for row in rows])
    tickets = [
        generator.add(PromptJob(row, clip, draw.shape[1], numbers=tuple(draw)))
        for row, clip, draw in zip(rows, clips, draws, strict=True)
    ]
    done: dict[int, list[list[int]]] = {}
    while generator.busy:
        for ticket, continuations in generator.advance():
            done[ticket] = [list(continuation.tokens) for continuation in continuations]
    return [done[ticket] for ticket in tickets]
