"""Forward passes over packed sequences, without padding: audio to embeddings, embeddings to hidden states."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TypeAlias

import torch
from torch import nn
from transformers import Qwen3ASREncoder, Qwen3ASRForConditionalGeneration, Qwen3ASRForTokenClassification

from caspi.model.attention import PACKED
from caspi.model.batch import AudioBatch, Batch, Sequences
from caspi.model.config import MEL_BINS
from caspi.model.features import CHUNK_FRAMES, log_mel


def use_packed_attention(model: Qwen3ASRForConditionalGeneration) -> None:
    """Sets encoder and decoder to attention over packed sequences."""
    model.config.audio_config._attn_implementation = PACKED
    model.config.text_config._attn_implementation = PACKED


def encode_features(
    model: Qwen3ASRForConditionalGeneration, features: torch.Tensor, batch: AudioBatch, *, project: bool = True
) -> torch.Tensor:
    """Log-mel [clips, MEL_BINS, time] to embeddings [all audio tokens, width], clips one after another."""
    clips, _, time = features.shape
    grid = features.view(clips, MEL_BINS, time // CHUNK_FRAMES, CHUNK_FRAMES).transpose(1, 2)
    tower = model.model.audio_tower
    hidden = _conv_frontend(tower, grid.reshape(-1, MEL_BINS, CHUNK_FRAMES)[batch.chunks])
    hidden = hidden.flatten(0, 1).index_select(0, batch.token_positions)
    for layer in tower.layers:
        hidden = layer(hidden, batch.window_bounds, max_seqlen=batch.max_window_length)[0]
    hidden = tower.ln_post(hidden)
    return model.model.multi_modal_projector(hidden) if project else hidden


def _conv_frontend(tower: Qwen3ASREncoder, chunks: torch.Tensor) -> torch.Tensor:
    """One-second chunks of log-mel [n, MEL_BINS, CHUNK_FRAMES] to [n, TOKENS_PER_CHUNK, width]: the convolutions and
    positional embeddings of the tower, whose own forward makes the host wait for the device."""
    hidden = nn.functional.gelu(tower.conv2d1(chunks[:, None].to(tower.conv2d1.weight.dtype)))
    if hidden.is_cuda:  # in any other layout, each bf16 convolution converts its input
        hidden = hidden.contiguous(memory_format=torch.channels_last)
    for convolution in (tower.conv2d2, tower.conv2d3):
        hidden = nn.functional.gelu(convolution(hidden))
    hidden = tower.conv_out(hidden.permute(0, 3, 1, 2).flatten(2))
    return hidden + tower.positional_embedding(hidden.shape[1]).to(hidden.dtype)


def encode(model: Qwen3ASRForConditionalGeneration, batch: AudioBatch) -> torch.Tensor:
    """Samples to embeddings [all audio tokens, width]."""
    return encode_features(model, log_mel(batch.samples, batch.frames), batch)


def decode_hidden(
    model: Qwen3ASRForConditionalGeneration,
    audio: torch.Tensor,
    input_ids: torch.Tensor,
    audio_positions: torch.Tensor,
    position_ids: torch.Tensor,
    bounds: torch.Tensor,
    max_length: int,
) -> torch.Tensor:
    """Hidden states [tokens, width] of packed sequences; `bounds` int32 [sequences + 1] are cumulative lengths."""
    embeddings = model.model.language_model.embed_tokens(input_ids)
    # The embedding table stays fp32 under autocast; the residual stream uses the dtype of the matrix products.
    embeddings = embeddings.to(audio.dtype).index_copy(0, audio_positions, audio)
    output = model.model.language_model(
        inputs_embeds=embeddings[None],
        position_ids=position_ids[None],
        use_cache=False,
        cu_seq_lens_q=bounds,
        cu_seq_lens_k=bounds,
        max_length_q=max_length,
        max_length_k=max_length,
    )
    return output.last_hidden_state[0]


Model: TypeAlias = Qwen3ASRForConditionalGeneration | Qwen3ASRForTokenClassification


def output_weight(model: Model) -> nn.Parameter:
    """The weight that turns hidden states into logits: of tokens, or of times for an aligner."""
    is_aligner = isinstance(model, Qwen3ASRForTokenClassification)
    return model.score.weight if is_aligner else model.lm_head.weight


def forward_audio(model: Model, batch: Batch, *, project: bool = True) -> torch.Tensor:
    """Audio embeddings [audio tokens, width], feature masks applied."""
    features = log_mel(batch.audio.samples, batch.audio.frames)
    if batch.masks is not None:
        features = batch.masks.apply(features)
    return encode_features(model, features, batch.audio, project=project)


def sequence_hidden(model: Model, audio: torch.Tensor, sequences: Sequences) -> torch.Tensor:
    """Hidden states [labels, width] only at the positions that predict a label; audio [all audio tokens of the
    sequences, width]."""
    hidden = decode_hidden(
        model,
        audio,
        sequences.input_ids,
        sequences.audio_positions,
        sequences.position_ids,
        sequences.bounds,
        sequences.max_length,
    )
    return hidden[sequences.label_positions]


def label_hidden(model: Model, batch: Batch) -> torch.Tensor:
    """Hidden states [labels, width] at the positions that predict a target token."""
    return sequence_hidden(model, forward_audio(model, batch), batch.sequences)


def label_logits(model: Model, batch: Batch) -> torch.Tensor:
    """Logits at the positions that predict a label: [labels, vocabulary], or the outputs of an aligner's classifier."""
    return nn.functional.linear(label_hidden(model, batch), output_weight(model))


@contextlib.contextmanager
def evaluation_mode(model: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode inside the block; restores the previous mode afterwards, also after an exception."""
    training = model.training
    if training:  # otherwise a walk through all modules is saved
        model.eval()
    try:
        yield
    finally:
        if training:
            model.train()
