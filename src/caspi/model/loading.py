"""Loads a MODEL into memory: `tiny`, a local folder or a Hub id; tokenizer files may be in either checkpoint layout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors import SafetensorError
from transformers import (
    AutoTokenizer,
    PreTrainedTokenizerBase,
    Qwen3ASRConfig,
    Qwen3ASRFeatureExtractor,
    Qwen3ASRForConditionalGeneration,
    Qwen3ASRProcessor,
)

from caspi import hub
from caspi.errors import UsageError, first_line
from caspi.model.architectures import configuration
from caspi.model.config import ModelConfig
from caspi.model.eight_bit import EightBitWeight, eight_bit_format, separate
from caspi.model.files import model_fingerprint, read_tensors
from caspi.model.forward import use_packed_attention
from caspi.model.host_memory import keep_freed_memory
from caspi.model.prompt import CHAT_TEMPLATE, Prompt

_SHIPPED = Path(__file__).parent / "assets"
TINY = _SHIPPED / "tiny"
TINY_ALIGNER = "tiny-aligner"  # Hebrew, by letters, from synthetic speech (recipes/aligner-tiny.yaml)


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model with packed attention, its prompt builder and its processor (saved in every checkpoint). eight_bit: the
    weights that the checkpoint has in eight bits, by the names of parameters; the model has them as floats too."""

    architecture: ClassVar[type[Qwen3ASRForConditionalGeneration]] = Qwen3ASRForConditionalGeneration
    model: Qwen3ASRForConditionalGeneration
    prompt: Prompt
    processor: Qwen3ASRProcessor
    eight_bit: Mapping[str, EightBitWeight] = field(default_factory=dict)


def resolve(name: str) -> str:
    """The folder or Hub id that transformers loads for MODEL. Raises UsageError for a local path that is no model."""
    if name in ("tiny", TINY_ALIGNER):
        return str(_SHIPPED / name)
    path = Path(name)
    if path.is_dir():
        _refuse_original_layout(path)
        if not (path / "config.json").is_file():
            inside = sorted(child.parent.name for child in path.glob("*/config.json"))
            hint = f"; it holds {', '.join(inside)}" if inside else ""
            raise UsageError(f"{name} is not a model folder: it has no config.json{hint}")
        return str(path)
    if name.startswith((".", "/")) or name.count("/") != 1:
        raise UsageError(f"no model at {name}: give a folder, a Hub id such as Qwen/Qwen3-ASR-1.7B-hf, or tiny")
    return name


def content_of(model: str) -> str:
    """The fingerprint of a model's files if they are in a local folder, else its name."""
    folder = Path(resolve(model))
    return model_fingerprint(folder) if folder.is_dir() else model


def _refuse_original_layout(folder: Path) -> None:
    """Raises UsageError for the layout of qwen-asr: its tensors have other names, so the weights would stay random."""
    if is_original_layout(folder):
        raise UsageError(
            f"{folder} is in the original layout of qwen-asr: start from the native layout, such as "
            "Qwen/Qwen3-ASR-1.7B-hf, or from the folder that was exported"
        )


def is_original_layout(folder: Path) -> bool:
    """Whether a folder holds a model in the layout of qwen-asr and vLLM."""
    config = folder / "config.json"
    return config.is_file() and (folder / "model.safetensors").is_file() and "thinker_config" in config.read_text()


def load_processor(name: str, revision: str | None = None) -> Qwen3ASRProcessor:
    """The processor of MODEL; if it has no feature-extractor settings, with the model's defaults."""
    if not Path(source := resolve(name)).is_dir():
        hub.fetch(source, "config.json", revision)  # one file first, to report a wrong name or network errors clearly
    try:
        processor = Qwen3ASRProcessor.from_pretrained(source, revision=revision)
    except (OSError, ValueError) as error:
        raise UsageError(f"model {name}: cannot load its processor ({first_line(error)})") from error
    if isinstance(processor.feature_extractor, Qwen3ASRFeatureExtractor):
        return processor
    return make_processor(processor.tokenizer)  # the original layout names Whisper's extractor


def make_processor(tokenizer: PreTrainedTokenizerBase) -> Qwen3ASRProcessor:
    """A processor around a tokenizer, with the model's chat layout."""
    return Qwen3ASRProcessor(Qwen3ASRFeatureExtractor(), tokenizer, chat_template=CHAT_TEMPLATE)


def load(config: ModelConfig, device: torch.device | str = "cpu") -> LoadedModel:
    """The model in fp32 on `device`. Raises UsageError if it cannot be loaded."""
    if torch.device(device).type == "cpu":
        keep_freed_memory()
    processor = load_processor(config.start, config.revision)
    eight_bit: dict[str, EightBitWeight] = {}
    if config.init == "random":
        model = random_model(config, processor.tokenizer)
    else:
        try:
            model, eight_bit = _from_files(resolve(config.start), config.revision)
        except (OSError, ValueError, SafetensorError) as error:
            raise UsageError(f"model {config.start}: cannot load its weights ({first_line(error)})") from error
    use_packed_attention(model)
    return LoadedModel(model.to(device), Prompt(processor.tokenizer), processor, eight_bit)


def refuse_aligner(config: Mapping[str, Any], name: str) -> None:
    """Raises UsageError if the content of a config.json is that of an aligner, which cannot transcribe."""
    if "Qwen3ASRForTokenClassification" in (config.get("architectures") or ()):
        raise UsageError(f"{name} is an aligner: it finds the times of words (caspi align) and cannot transcribe")


def _from_files(
    source: str, revision: str | None
) -> tuple[Qwen3ASRForConditionalGeneration, dict[str, EightBitWeight]]:
    """The model in fp32, and its weights that are stored in eight bits. transformers would want another package for
    these, and give back a model that computes with them."""
    config = Qwen3ASRConfig.from_pretrained(source, revision=revision)
    refuse_aligner(config.to_dict(), source)
    if eight_bit_format(config.to_dict()) is None:
        return Qwen3ASRForConditionalGeneration.from_pretrained(source, revision=revision, dtype=torch.float32), {}
    folder = Path(source) if Path(source).is_dir() else hub.weights_folder(source, revision)
    others, eight_bit = separate(read_tensors(folder))
    del config.quantization_config
    weights = others | {name: weight.float() for name, weight in eight_bit.items()}
    return Qwen3ASRForConditionalGeneration.from_pretrained(
        None, config=config, state_dict=weights, dtype=torch.float32
    ), eight_bit


def cast(model: Qwen3ASRForConditionalGeneration, dtype: torch.dtype) -> Qwen3ASRForConditionalGeneration:
    """The model with its weights in `dtype`. The rotary embedding tables stay fp32; `Module.to` would round them: in
    bf16 their angles are half a radian off at position 400."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    return model


def load_to_decode(model: str, device: str | None = None) -> LoadedModel:
    """On the GPU in bf16 if there is one, else on the CPU in fp32. Raises UsageError if it cannot be loaded."""
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    loaded = load(ModelConfig(start=model), device)
    if device.startswith("cuda"):
        cast(loaded.model, torch.bfloat16)
    return loaded


def random_model(config: ModelConfig, tokenizer: PreTrainedTokenizerBase) -> Qwen3ASRForConditionalGeneration:
    """A model with random weights, the same for the same seed."""
    scale = config.scale or ("tiny" if config.start == "tiny" else "1.7b")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return Qwen3ASRForConditionalGeneration(configuration(scale, tokenizer))


def load_tokenizer(folder: str | Path) -> PreTrainedTokenizerBase:
    """A tokenizer from its files."""
    return AutoTokenizer.from_pretrained(str(folder))
