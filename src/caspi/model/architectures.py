"""The model shapes of Qwen3-ASR: the released ones and `tiny`, as transformers configurations."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedTokenizerBase, Qwen3ASRConfig

from caspi.errors import UsageError

# 1.7B: config.json of Qwen/Qwen3-ASR-1.7B . 0.6B: encoder width 896 and 180 M parameters
# from its technical report, decoder Qwen3-0.6B. tiny: caspi's own.
SCALES: dict[str, dict[str, dict[str, Any]]] = {
    "1.7b": {
        "audio": {"d_model": 1024, "encoder_layers": 24, "encoder_attention_heads": 16, "encoder_ffn_dim": 4096,
                  "downsample_hidden_size": 480, "output_dim": 2048},
        "text": {"hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28,
                 "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128},
    },
    "0.6b": {
        "audio": {"d_model": 896, "encoder_layers": 18, "encoder_attention_heads": 14, "encoder_ffn_dim": 3584,
                  "downsample_hidden_size": 480, "output_dim": 1024},
        "text": {"hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28,
                 "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128},
    },
    "tiny": {
        "audio": {"d_model": 128, "encoder_layers": 4, "encoder_attention_heads": 4, "encoder_ffn_dim": 512,
                  "downsample_hidden_size": 32, "output_dim": 128},
        "text": {"hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 4,
                 "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32},
    },
}  # fmt: skip

RELEASED_VOCABULARY = 151_936
_RELEASED_IDS = {"<|audio_pad|>": 151_676, "<|im_end|>": 151_645, "<|endoftext|>": 151_643}


def configuration(scale: str, tokenizer: PreTrainedTokenizerBase | None = None) -> Qwen3ASRConfig:
    """The configuration of `scale`; without a tokenizer, with the released vocabulary and token ids."""
    if scale not in SCALES:
        raise UsageError(f"model.scale: {scale!r} is not one of {', '.join(SCALES)}")
    shape = SCALES[scale]

    def token(name: str) -> int:
        return _RELEASED_IDS[name] if tokenizer is None else int(tokenizer.convert_tokens_to_ids(name))

    # The released embedding table has more rows than its tokenizer has tokens.
    has_released_tokens = token("<|audio_pad|>") == _RELEASED_IDS["<|audio_pad|>"]

    return Qwen3ASRConfig(
        audio_config={"model_type": "qwen3_asr_encoder", **shape["audio"]},
        text_config={
            "model_type": "qwen3",
            "vocab_size": RELEASED_VOCABULARY if tokenizer is None or has_released_tokens else len(tokenizer),
            "max_position_embeddings": 65_536,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0},
            "tie_word_embeddings": True,
            **shape["text"],
        },
        audio_token_id=token("<|audio_pad|>"),
        eos_token_id=token("<|im_end|>"),
        pad_token_id=token("<|endoftext|>"),
        tie_word_embeddings=True,
    )
