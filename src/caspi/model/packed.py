"""Forward passes over packed sequences: audio to embeddings, embeddings to hidden states, no padding computed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from transformers import Qwen3ASREncoder, Qwen3ASRForConditionalGeneration

from caspi.model.attention import PACKED
from caspi.model.config import MEL_BINS
from caspi.model.features import CHUNK_FRAMES, TOKENS_PER_CHUNK, WINDOW_CHUNKS, audio_token_count, log_mel

_WINDOW_TOKENS = WINDOW_CHUNKS * TOKENS_PER_CHUNK


@dataclass(frozen=True, slots=True)
class AudioBatch:
    """Clips of a batch, with all that depends on lengths alone worked out on the host.

    samples: float32 [clips, EDGE + longest + EDGE]; frames: int64 [clips];
    chunks: int64 [n] which of the clips x seconds grid holds sound; kept: int64 [tokens] which of the n x 13 places
    that come of them stand for sound; windows: int32 [windows + 1] cumulative tokens of attention windows;
    longest_window: tokens; tokens: tokens of each clip.
    """

    samples: torch.Tensor
    frames: torch.Tensor
    chunks: torch.Tensor
    kept: torch.Tensor
    windows: torch.Tensor
    longest_window: int
    tokens: list[int]

    @classmethod
    def of(cls, samples: torch.Tensor, frames: torch.Tensor) -> AudioBatch:
        """From `features.pad_clips`."""
        counts: list[int] = frames.tolist()
        grid = -(-max(counts) // CHUNK_FRAMES)
        chunks: list[int] = []
        kept, windows = [], [0]
        for clip, count in enumerate(counts):
            left = audio_token_count(count)
            first = len(chunks) * TOKENS_PER_CHUNK
            kept.append(torch.arange(first, first + left))  # only a clip's last second may be in part
            chunks += range(clip * grid, clip * grid - (-count // CHUNK_FRAMES))
            while left:
                windows.append(windows[-1] + min(left, _WINDOW_TOKENS))
                left -= min(left, _WINDOW_TOKENS)
        bounds = torch.tensor(windows, dtype=torch.int32)
        return cls(
            samples=samples,
            frames=frames,
            chunks=torch.tensor(chunks),
            kept=torch.cat(kept),
            windows=bounds,
            longest_window=int((bounds[1:] - bounds[:-1]).max()),
            tokens=[audio_token_count(count) for count in counts],
        )


def use_packed_attention(model: Qwen3ASRForConditionalGeneration) -> None:
    """Encoder and decoder attend over packed sequences from now on."""
    model.config.audio_config._attn_implementation = PACKED
    model.config.text_config._attn_implementation = PACKED


def encode_features(
    model: Qwen3ASRForConditionalGeneration, features: torch.Tensor, batch: AudioBatch, *, project: bool = True
) -> torch.Tensor:
    """Log-mel [clips, MEL_BINS, time] to embeddings [all audio tokens, width], clips one after another."""
    clips, _, time = features.shape
    grid = features.view(clips, MEL_BINS, time // CHUNK_FRAMES, CHUNK_FRAMES).transpose(1, 2)
    tower = model.model.audio_tower
    hidden = _front(tower, grid.reshape(-1, MEL_BINS, CHUNK_FRAMES)[batch.chunks])
    hidden = hidden.flatten(0, 1).index_select(0, batch.kept)
    for layer in tower.layers:
        hidden = layer(hidden, batch.windows, max_seqlen=batch.longest_window)[0]
    hidden = tower.ln_post(hidden)
    return model.model.multi_modal_projector(hidden) if project else hidden


def _front(tower: Qwen3ASREncoder, chunks: torch.Tensor) -> torch.Tensor:
    """Seconds of log-mel [n, MEL_BINS, CHUNK_FRAMES] to [n, TOKENS_PER_CHUNK, width], as the tower does before its
    blocks; its own forward counts tokens on the device and waits for the result."""
    hidden = nn.functional.gelu(tower.conv2d1(chunks[:, None].to(tower.conv2d1.weight.dtype)))
    if hidden.is_cuda:  # convolutions in bf16 turn their inputs so, each for itself
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
    longest: int,
) -> torch.Tensor:
    """Hidden states [tokens, width] of packed sequences; `bounds` int32 [sequences + 1] are cumulative lengths."""
    embeddings = model.model.language_model.embed_tokens(input_ids)
    # Tables stay fp32 under autocast; what runs from block to block is as precise as the products that add to it.
    embeddings = embeddings.to(audio.dtype).index_copy(0, audio_positions, audio)
    output = model.model.language_model(
        inputs_embeds=embeddings[None],
        position_ids=position_ids[None],
        use_cache=False,
        cu_seq_lens_q=bounds,
        cu_seq_lens_k=bounds,
        max_length_q=longest,
        max_length_k=longest,
    )
    return output.last_hidden_state[0]
