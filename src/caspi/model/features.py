"""Log-mel features of a batch, on the device, equal to those of each clip alone from Qwen3ASRFeatureExtractor.

For a batch, the model's extractor pads short clips with silence before the transform, so that a clip's last
frames and its padding depend on the other clips. Here every clip is processed as if it were alone: reflected edges,
its own maximum, zeros after its last frame.
"""

from __future__ import annotations

import functools

import numpy as np
import torch
from transformers.audio_utils import mel_filter_bank

from caspi.audio import SAMPLE_RATE
from caspi.model.config import MEL_BINS

WINDOW = 400  # samples: 25 ms
HOP = 160  # samples: 10 ms a frame
FRAMES_PER_SECOND = SAMPLE_RATE // HOP  # 100
CHUNK_FRAMES = 100  # the encoder's convolutions process 1 s at a time
TOKENS_PER_CHUNK = 13
WINDOW_CHUNKS = 8  # the encoder's attention covers windows of 8 s
MIN_SAMPLES = 8_000  # shorter clips are extended with silence, as in the model's extractor
EDGE = WINDOW // 2  # samples reflected at either end


def frame_count(samples: int) -> int:
    """Mel frames of a clip of `samples` samples."""
    return max(samples, MIN_SAMPLES) // HOP


def audio_token_count(frames: int) -> int:
    """Tokens of the encoder for `frames` mel frames: 13 per full second; the tail is halved three times, rounded up."""
    chunks, tail = divmod(frames, CHUNK_FRAMES)
    for _ in range(3):
        tail = (tail + 1) // 2
    return chunks * TOKENS_PER_CHUNK + tail


def pad_clips(clips: list[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    """Clips (float32 [n_i]) to samples [batch, EDGE + longest clip + EDGE], edges reflected, and mel frames [batch]."""
    lengths = [max(len(clip), MIN_SAMPLES) for clip in clips]
    samples = np.zeros((len(clips), max(lengths) + 2 * EDGE), np.float32)
    for row, clip, length in zip(samples, clips, lengths, strict=True):
        padded = row[EDGE : EDGE + length]
        padded[: len(clip)] = clip
        row[:EDGE] = padded[EDGE:0:-1]
        row[EDGE + length : 2 * EDGE + length] = padded[-2 : -EDGE - 2 : -1]
    frames = torch.tensor([frame_count(len(clip)) for clip in clips])
    return torch.from_numpy(samples), frames


@functools.lru_cache(maxsize=8)
def _filters(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Hann window [WINDOW] and mel filters [MEL_BINS, WINDOW / 2 + 1] on the device."""
    bank = mel_filter_bank(
        num_frequency_bins=1 + WINDOW // 2,
        num_mel_filters=MEL_BINS,
        min_frequency=0.0,
        max_frequency=SAMPLE_RATE / 2,
        sampling_rate=SAMPLE_RATE,
        norm="slaney",
        mel_scale="slaney",
    )
    return torch.hann_window(WINDOW, device=device), torch.from_numpy(bank.T).to(device, torch.float32).contiguous()


@torch.no_grad()
def log_mel(samples: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
    """Samples of `pad_clips` to float32 [batch, MEL_BINS, time], time a multiple of CHUNK_FRAMES, zero past the end."""
    window, filters = _filters(samples.device)
    with torch.autocast(samples.device.type, enabled=False):
        spectrum = torch.stft(samples, WINDOW, HOP, window=window, center=False, return_complex=True)
        power = spectrum.real.square() + spectrum.imag.square()
        mel = (filters @ power).clamp(min=1e-10).log10()
    # Count whole frames only, as AudioBatch does: a partial frame of the longest clip must not add a second.
    time = -(-frame_count(samples.shape[1] - 2 * EDGE) // CHUNK_FRAMES) * CHUNK_FRAMES
    mel = torch.nn.functional.pad(mel, (0, max(0, time - mel.shape[2])))[:, :, :time]
    is_frame = torch.arange(time, device=mel.device) < frames.to(mel.device)[:, None]
    is_padding = ~is_frame[:, None, :]
    maximum = mel.masked_fill(is_padding, -torch.inf).amax(dim=(1, 2), keepdim=True)
    mel = (torch.maximum(mel, maximum - 8.0) + 4.0) / 4.0
    return mel.masked_fill(is_padding, 0.0)
