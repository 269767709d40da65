"""Ways to use a checkpoint. Each takes whole clips and returns their texts; the model identifies the language, because
qwen-asr and transformers know no language beyond the released ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoProcessor, Qwen3ASRForConditionalGeneration

from caspi.audio import Seconds
from caspi.export.formats import export
from caspi.inference.engine.engine import Engine
from caspi.inference.engine.generator import GeneratorOptions
from caspi.inference.engine.requests import DecodeRequest
from caspi.inference.long_audio import longest_window, windows
from caspi.inference.transcriber import is_silent
from caspi.model.config import ModelConfig
from caspi.model.loading import cast, load, load_tokenizer, resolve
from caspi.model.prompt import Prompt
from caspi.parity.clips import ParityClip

Recognise = Callable[[Sequence[ParityClip]], list[str]]


@dataclass(frozen=True, slots=True)
class Backend:
    """about: what it is, for the report."""

    name: str
    about: str
    recognise: Recognise


def engine(model: str) -> Backend:
    """caspi's own."""
    return Backend("engine", "caspi, all clips together", lambda clips: _decoded(model, clips))


def plain_engine(model: str) -> Backend:
    """Without packing, kernels and graphs."""
    options = replace(GeneratorOptions.for_device(torch.device(_device())), rows=1, graphs=False, kernels=False)
    return Backend(
        "engine-plain", "caspi, one clip at a time, plain operations", lambda clips: _decoded(model, clips, options)
    )


def eight_bit_engine(model: str, folder: Path) -> Backend:
    """caspi's own with an export in int8, which is written into `folder`."""
    return Backend("int8", "caspi, decoder in int8", lambda clips: _decoded(str(export(model, "int8", folder)), clips))


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _decoded(model: str, clips: Sequence[ParityClip], options: GeneratorOptions | None = None) -> list[str]:
    """Windows as other programs get them: one that reaches its token limit is not split and decoded again, as
    `transcribe` does."""
    loaded = load(ModelConfig(start=model), _device())
    if _device() == "cuda":
        cast(loaded.model, torch.bfloat16)
    used = Engine(loaded, options=options)

    def recognise(windows: Sequence[ParityClip]) -> list[str]:
        requests = [DecodeRequest(window.samples, window.context) for window in windows]
        one_by_one = options is not None and options.rows == 1
        found = [used.decode([request])[0] for request in requests] if one_by_one else used.decode(requests)
        return [hypothesis.text for hypothesis in found]

    return by_windows(model, clips, recognise)


def transformers(model: str) -> Backend:
    """transformers' own forward and `generate` with sdpa, used as in its documentation, one window at a time."""
    return Backend("transformers", "transformers, sdpa", lambda clips: by_windows(model, clips, _Transformers(model)))


class _Transformers:
    """Texts of windows."""

    def __init__(self, model: str) -> None:
        where = resolve(model)
        self._processor: Any = AutoProcessor.from_pretrained(where)
        device = _device()
        dtype = torch.bfloat16 if device == "cuda" else torch.float32
        self._model = Qwen3ASRForConditionalGeneration.from_pretrained(where, dtype=dtype, attn_implementation="sdpa")
        self._model = self._model.to(device).eval()
        self._prompt = Prompt(load_tokenizer(where))

    @torch.inference_mode()
    def __call__(self, clips: Sequence[ParityClip]) -> list[str]:
        return [self._text(clip) for clip in clips]

    def _text(self, clip: ParityClip) -> str:
        conversation = [
            {"role": "system", "content": clip.context},
            {"role": "user", "content": [{"type": "audio", "audio": ""}]},
        ]
        text = self._processor.apply_chat_template(conversation, add_generation_prompt=True, tokenize=False)
        inputs = self._processor(text=[text], audio=[clip.samples], return_tensors="pt")
        inputs = inputs.to(self._model.device, self._model.dtype)
        tokens = self._model.generate(
            **inputs, max_new_tokens=token_limit(clip), do_sample=False,
            eos_token_id=self._prompt.end, pad_token_id=self._prompt.pad,
        )  # fmt: skip
        return self._prompt.parse(tokens[0, inputs["input_ids"].shape[1] :].tolist())[1]


def token_limit(clip: ParityClip) -> int:
    """As many tokens as the engine allows."""
    return DecodeRequest(clip.samples).limit


def by_windows(model: str, clips: Sequence[ParityClip], recognise: Recognise) -> list[str]:
    """Texts of whole clips from a program that takes windows: caspi's, so that only what is in a window can differ."""
    longest = longest_window(AutoConfig.from_pretrained(resolve(model)).to_dict())
    pieces: list[ParityClip] = []
    of_clip: list[list[int]] = []
    for clip in clips:
        inside = [samples for samples in _windows(clip.samples, longest) if not is_silent(samples)]
        of_clip.append(list(range(len(pieces), len(pieces) + len(inside))))
        pieces += [replace(clip, samples=samples) for samples in inside]
    texts = recognise(pieces)
    return [" ".join(texts[number] for number in numbers if texts[number]) for numbers in of_clip]


def _windows(samples: np.ndarray, longest: Seconds) -> list[np.ndarray]:
    return [samples[first:last] for first, last in windows(samples, longest)]
