"""On a GPU: what the encoder is given, against the model's own feature extractor."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import Qwen3ASRFeatureExtractor

from caspi.model.features import log_mel, pad_clips

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")]


def test_features_are_the_models_own() -> None:
    draw = np.random.default_rng(0)
    lengths = [1_000, 8_000, 16_000, 16_077, 47_999, 160_000, 479_981]
    clips = [(draw.standard_normal(length) * 10 ** draw.uniform(-3, -0.5)).astype(np.float32) for length in lengths]
    samples, frames = pad_clips(clips)
    log_mels = log_mel(samples.cuda(), frames.cuda()).cpu()
    extractor = Qwen3ASRFeatureExtractor()
    for index, one in enumerate(clips):
        reference = extractor(one, sampling_rate=16_000, padding=True, return_attention_mask=True, return_tensors="pt")
        features = reference["input_features"][0]
        assert torch.allclose(log_mels[index, :, : features.shape[1]], features, atol=1e-4)
        assert (log_mels[index, :, features.shape[1] :] == 0).all()
