"""Exports a checkpoint for other programs: native transformers in bf16, or the original layout of qwen-asr and vLLM;
either with the decoder in eight bits."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig

from caspi import atomic_output
from caspi.errors import UsageError
from caspi.export.adapters import write_adapters
from caspi.export.cards import adapter_card, eight_bit_card, original_card
from caspi.hub import CARD
from caspi.model.eight_bit import Format, compressed_tensors_config, quantised
from caspi.model.files import WEIGHTS, copy_model_files, max_clip_seconds, read_weights, write_weights
from caspi.model.loading import load_tokenizer, refuse_aligner, resolve

_ARCHITECTURE = "Qwen3ASRForConditionalGeneration"
# Native name to original name, first match wins (the projector sits inside the encoder there).
_ORIGINAL_NAMES = (
    ("model.multi_modal_projector.linear_1.", "thinker.audio_tower.proj1."),
    ("model.multi_modal_projector.linear_2.", "thinker.audio_tower.proj2."),
    ("model.audio_tower.", "thinker.audio_tower."),
    ("model.language_model.", "thinker.model."),
    ("lm_head.", "thinker.lm_head."),
)


def original_name(native: str) -> str:
    """`model.language_model.norm.weight` to `thinker.model.norm.weight`. Raises ValueError."""
    for prefix, other in _ORIGINAL_NAMES:
        if native.startswith(prefix):
            return other + native.removeprefix(prefix)
    raise ValueError(f"no original name for {native}")


def native_name(original: str) -> str:
    """The inverse of `original_name`."""
    for other, prefix in _ORIGINAL_NAMES:
        if original.startswith(prefix):
            return other + original.removeprefix(prefix)
    raise ValueError(f"no native name for {original}")


def _to_native(source: Path, out: Path, form: Format | None) -> None:
    copy_model_files(source, out)
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    config |= {"dtype": "bfloat16", "architectures": [_ARCHITECTURE]}  # vLLM needs it, and a base model may lack it
    _write_config(config, form, out)
    _write_generation_config(source, out)
    write_weights(_small(read_weights(source), form), out / WEIGHTS)


def _to_original(source: Path, out: Path, form: Format | None) -> None:
    weights = {original_name(name): tensor for name, tensor in read_weights(source).items()}
    # The original loader does not tie weights: the head is stored.
    weights.setdefault("thinker.lm_head.weight", weights["thinker.model.embed_tokens.weight"].clone())
    write_weights(_small(weights, form), out / WEIGHTS)
    copy_model_files(source, out)
    _write_config(_original_config(source), form, out)
    tokenizer = load_tokenizer(source)
    tokenizer.backend_tokenizer.model.save(str(out))  # vocab.json and merges.txt
    written = {
        "preprocessor_config.json": _ORIGINAL_PREPROCESSOR,
        "tokenizer_config.json": _original_tokenizer_config(out / "tokenizer_config.json"),
    }
    for name, content in written.items():
        (out / name).write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")
    _write_generation_config(source, out)
    longest = max_clip_seconds(json.loads((source / "config.json").read_text(encoding="utf-8")))
    readme = out / CARD
    card = readme.read_text(encoding="utf-8") if readme.is_file() else "# REPOSITORY\n"
    readme.write_text(original_card(card, longest), encoding="utf-8")


def _write_config(config: dict[str, Any], form: Format | None, out: Path) -> None:
    eight_bit = {"quantization_config": compressed_tensors_config(form)} if form else {}
    (out / "config.json").write_text(json.dumps(config | eight_bit, indent=1), encoding="utf-8")


def _write_generation_config(source: Path, out: Path) -> None:
    tokenizer = load_tokenizer(source)
    content = {
        "do_sample": False,
        "eos_token_id": [tokenizer.convert_tokens_to_ids("<|im_end|>")],
        "pad_token_id": tokenizer.convert_tokens_to_ids("<|endoftext|>"),
    }
    (out / "generation_config.json").write_text(json.dumps(content, indent=1), encoding="utf-8")


def _original_tokenizer_config(path: Path) -> dict[str, Any]:
    """For transformers 4.57, which qwen-asr pins: transformers 5 writes a list of special tokens where 4.57 expects a
    mapping of names."""
    config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    extra = config.get("extra_special_tokens")
    if isinstance(extra, list):
        config["additional_special_tokens"] = extra
        names = ("audio_bos_token", "audio_eos_token", "audio_token")
        config["extra_special_tokens"] = {name: config[name] for name in names if name in config}
    config.pop("backend", None)
    return config


_ORIGINAL_PREPROCESSOR = {
    "chunk_length": 30, "dither": 0.0, "feature_extractor_type": "WhisperFeatureExtractor", "feature_size": 128,
    "hop_length": 160, "n_fft": 400, "n_samples": 480_000, "nb_max_frames": 3000, "padding_side": "right",
    "padding_value": 0.0, "processor_class": "Qwen3ASRProcessor", "return_attention_mask": True,
}  # fmt: skip


def _original_config(source: Path) -> dict[str, Any]:
    """config.json of the original layout: everything inside `thinker_config`."""
    native = AutoConfig.from_pretrained(source).to_dict()
    tokenizer = load_tokenizer(source)
    audio = {
        k: v for k, v in native["audio_config"].items() if k not in ("model_type", "dtype", "max_position_embeddings")
    }
    text = {
        k: v
        for k, v in native["text_config"].items()
        if k not in ("model_type", "dtype", "rope_parameters", "layer_types")
    }
    head = text["head_dim"]
    temporal = head // 2 - 2 * (head // 2 * 5 // 16)
    section = [temporal, head // 2 * 5 // 16, head // 2 * 5 // 16]  # 24, 20, 20 of 64 as released
    text["rope_theta"] = native["text_config"]["rope_parameters"]["rope_theta"]
    text["rope_scaling"] = {
        "rope_type": "default", "type": "default", "interleaved": True, "mrope_interleaved": True,
        "mrope_section": section,
    }  # fmt: skip
    return {
        "architectures": [_ARCHITECTURE],
        "model_type": "qwen3_asr",
        "dtype": "bfloat16",
        "support_languages": [],
        "max_clip_seconds": max_clip_seconds(native),
        "thinker_config": {
            "model_type": "qwen3_asr_thinker",
            "audio_config": audio | {"model_type": "qwen3_asr_audio_encoder", "max_source_positions": 1500},
            "text_config": text | {"model_type": "qwen3_asr_text"},
            "audio_token_id": native["audio_token_id"],
            "audio_start_token_id": tokenizer.convert_tokens_to_ids("<|audio_start|>"),
            "audio_end_token_id": tokenizer.convert_tokens_to_ids("<|audio_end|>"),
            "initializer_range": native["initializer_range"],
            "dtype": "bfloat16",
        },
    }


def _small(weights: dict[str, torch.Tensor], form: Format | None) -> dict[str, torch.Tensor]:
    """The weights in bf16, the decoder's linear layers in eight bits if there is a format for them."""
    weights = quantised(weights, form) if form else weights
    large = (torch.float32, torch.float64, torch.float16)
    return {name: t.to(torch.bfloat16) if t.dtype in large else t for name, t in weights.items()}


def _to_peft(source: Path, out: Path, _: Format | None) -> None:
    write_adapters(source, out)
    readme = source / CARD
    if readme.is_file():
        (out / CARD).write_text(adapter_card(readme.read_text(encoding="utf-8")), encoding="utf-8")


# Name -> layout, and format of the decoder's linear layers, None for bf16.
FORMATS: dict[str, tuple[Callable[[Path, Path, Format | None], None], Format | None]] = {
    "hf": (_to_native, None),
    "int8": (_to_native, "int8"),
    "fp8": (_to_native, "fp8"),
    "qwen-asr": (_to_original, None),
    "qwen-asr-int8": (_to_original, "int8"),
    "qwen-asr-fp8": (_to_original, "fp8"),
    "peft": (_to_peft, None),
}


def export(model: str, to: str, out: Path) -> Path:
    """Writes MODEL in another format; `out` is written atomically. Raises UsageError."""
    if to not in FORMATS:
        raise UsageError(f"--to {to}: not one of {', '.join(FORMATS)}")
    source = Path(resolve(model))
    if not source.is_dir():
        raise UsageError(f"{model} is not a local folder: download it first, or export a checkpoint of your own")
    refuse_aligner(AutoConfig.from_pretrained(source).to_dict(), model)
    if out.resolve() == source.resolve() or source.resolve() in out.resolve().parents:
        raise UsageError(f"--out {out} is the model that is exported: give another folder")
    partial = atomic_output.begin_atomic(out, "export")
    write, form = FORMATS[to]
    write(source, partial, form)
    if form is not None:
        readme = partial / CARD
        card = readme.read_text(encoding="utf-8") if readme.is_file() else "# REPOSITORY\n"
        readme.write_text(eight_bit_card(card, form), encoding="utf-8")
    atomic_output.commit_atomic(partial, out)
    return out
