"""Forward passes over packed sequences: audio to embeddings, embeddings to hidden states, no padding computed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import Qwen3ASRForConditionalGeneration

from caspi.model.attention import PACKED
from caspi.model.config import MEL_BINS
from caspi.model.features import CHUNK_FRAMES, TOKENS_PER_CHUNK, WINDOW_CHUNKS, audio_token_count, log_mel

_WINDOW_TOKENS = WINDOW_CHUNKS * TOKENS_PER_CHUNK


@dataclass(frozen=True, slots=True)
class AudioBatch:
    """Clips of a batch, with all that depends on lengths alone worked out on the host.

    samples: float32 [clips, EDGE + longest + EDGE]; frames: int64 [clips];
    chunks: int64 [n] which of the clips x seconds grid holds sound; chunk_frames: int64 [n] frames in each;
    windows: int32 [windows + 1] cumulative tokens of attention windows; longest_window: tokens;
    tokens: tokens of each clip.
    """

    samples: torch.Tensor
    frames: torch.Tensor
    chunks: torch.Tensor
    chunk_frames: torch.Tensor
    windows: torch.Tensor
    longest_window: int
    tokens: list[int]

    @classmethod
    def of(cls, samples: torch.Tensor, frames: torch.Tensor) -> AudioBatch:
        """From `features.pad_clips`."""
        counts: list[int] = frames.tolist()
        grid = -(-max(counts) // CHUNK_FRAMES)
        chunks, chunk_frames, windows = [], [], [0]
        for clip, count in enumerate(counts):
            for second in range(-(-count // CHUNK_FRAMES)):
                chunks.append(clip * grid + second)
                chunk_frames.append(min(CHUNK_FRAMES, count - second * CHUNK_FRAMES))
            left = audio_token_count(count)
            while left:
                windows.append(windows[-1] + min(left, _WINDOW_TOKENS))
                left -= min(left, _WINDOW_TOKENS)
        bounds = torch.tensor(windows, dtype=torch.int32)
        return cls(
            samples=samples,
            frames=frames,
            chunks=torch.tensor(chunks),
            chunk_frames=torch.tensor(chunk_frames),
            windows=bounds,
            longest_window=int((bounds[1:] - bounds[:-1]).max()),
            tokens=[audio_token_count(count) for count in counts],
        )

    def to(self, device: torch.device) -> AudioBatch:
        """On the device."""
        moved = (t.to(device, non_blocking=True) for t in (self.samples, self.frames, self.chunks))
        samples, frames, chunks = moved
        return AudioBatch(
            samples,
            frames,
            chunks,
            self.chunk_frames.to(device, non_blocking=True),
            self.windows.to(device, non_blocking=True),
            self.longest_window,
            self.tokens,
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
    packed = grid.reshape(-1, MEL_BINS, CHUNK_FRAMES)[batch.chunks].transpose(0, 1)
    inside = torch.arange(CHUNK_FRAMES, device=features.device) < batch.chunk_frames[:, None]
    tower = model.model.audio_tower
    hidden = tower(
        input_features=packed.reshape(1, MEL_BINS, -1).to(tower.conv2d1.weight.dtype),
        input_features_mask=inside.reshape(1, -1).long(),
        cu_seqlens=batch.windows,
        max_seqlen=batch.longest_window,
    ).last_hidden_state
    return model.model.multi_modal_projector(hidden) if project else hidden


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
    embeddings = embeddings.index_copy(0, audio_positions, audio.to(embeddings.dtype))
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
