from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import Qwen3ASRFeatureExtractor

from caspi.model.features import audio_token_count, frame_count, log_mel, pad_clips


def clip(seconds: float, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(int(seconds * 16_000)) * 0.1).astype(np.float32)


@settings(max_examples=15)
@given(st.lists(st.integers(1_000, 200_000), min_size=1, max_size=4))
def test_batch_equals_the_models_extractor_one_clip_at_a_time(lengths: list[int]) -> None:
    clips = [clip(length / 16_000, seed) for seed, length in enumerate(lengths)]
    samples, frames = pad_clips(clips)
    log_mels = log_mel(samples, frames)
    extractor = Qwen3ASRFeatureExtractor()
    for index, one in enumerate(clips):
        reference = extractor(one, sampling_rate=16_000, padding=True, return_attention_mask=True, return_tensors="pt")
        features, mask = reference["input_features"][0], reference["attention_mask"][0]
        assert int(mask.sum()) == int(frames[index])
        assert torch.allclose(log_mels[index, :, : features.shape[1]], features, atol=1e-4)
        assert (log_mels[index, :, features.shape[1] :] == 0).all()


@given(st.integers(1, 20_000))
def test_token_count_equals_the_models(frames: int) -> None:
    from transformers.models.qwen3_asr.modeling_qwen3_asr import _get_feat_extract_output_lengths

    assert audio_token_count(frames) == int(_get_feat_extract_output_lengths(torch.tensor(frames)))


@pytest.mark.parametrize(("seconds", "tokens"), [(1, 13), (8, 104), (0.5, 7), (30, 390), (0.1, 7)])
def test_thirteen_tokens_a_second(seconds: float, tokens: int) -> None:
    assert audio_token_count(frame_count(int(seconds * 16_000))) == tokens
