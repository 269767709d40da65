"""Loads a forced aligner: the recogniser's encoder and decoder with a classifier of times in place of the head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, TypeAlias

import torch
from safetensors import SafetensorError
from transformers import Qwen3ASRConfig, Qwen3ASRForTokenClassification, Qwen3ASRProcessor

from caspi.errors import UsageError, first_line
from caspi.model.alignment import CHAT_TEMPLATE, AlignmentPrompt
from caspi.model.architectures import configuration
from caspi.model.batch import AlignerPrompt, AnyPrompt
from caspi.model.config import ModelConfig
from caspi.model.forward import use_packed_attention
from caspi.model.host_memory import keep_freed_memory
from caspi.model.letters import LETTERS, LetterPrompt, outputs_for
from caspi.model.loading import LoadedModel, load_processor, resolve
from caspi.model.prompt import Prompt

_RELEASED_BINS = 5_000


@dataclass(frozen=True, slots=True)
class LoadedAligner:
    """A model with packed attention, its prompt builder and its processor (saved in every checkpoint). The same class
    of transformers serves both kinds: with letters its classifier is used at the audio's positions."""

    architecture: ClassVar[type[Qwen3ASRForTokenClassification]] = Qwen3ASRForTokenClassification
    model: Qwen3ASRForTokenClassification
    prompt: AlignerPrompt
    processor: Qwen3ASRProcessor


def load_aligner(config: ModelConfig, device: torch.device | str = "cpu") -> LoadedAligner:
    """The aligner in fp32 on `device`: a checkpoint of one, or a recogniser with a new classifier, the same for the
    same seed. Raises UsageError if it cannot be loaded."""
    if torch.device(device).type == "cpu":
        keep_freed_memory()
    processor = load_processor(config.start, config.revision)
    processor.chat_template = CHAT_TEMPLATE
    settings = aligner_configuration(config, processor)
    prompt = _prompt(processor, settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        if config.init == "random":
            model = Qwen3ASRForTokenClassification(settings)
        else:
            try:
                model = _pretrained(config, settings)
            except (OSError, ValueError, SafetensorError) as error:
                raise UsageError(f"model {config.start}: cannot load its weights ({first_line(error)})") from error
        if isinstance(prompt, AlignmentPrompt):
            _make_room(model, prompt)
    use_packed_attention(model)
    return LoadedAligner(model.to(device), prompt, processor)


TrainedModel: TypeAlias = LoadedModel | LoadedAligner


def _prompt(processor: Qwen3ASRProcessor, settings: Qwen3ASRConfig) -> AlignerPrompt:
    if settings.aligner == "letters":
        return LetterPrompt(processor.tokenizer, settings.letters)
    return AlignmentPrompt(processor.tokenizer, settings.num_labels, settings.time_rounding)


def prompt_for(config: ModelConfig) -> AnyPrompt:
    """The prompt builder of a model for its task, without its weights. Raises UsageError."""
    processor = load_processor(config.start, config.revision)
    if config.task == "transcribe":
        return Prompt(processor.tokenizer)
    return _prompt(processor, aligner_configuration(config, processor))


def aligner_configuration(config: ModelConfig, processor: Qwen3ASRProcessor) -> Qwen3ASRConfig:
    """The configuration of the aligner that training starts from."""
    if config.init == "random":
        scale = config.scale or ("tiny" if config.start == "tiny" else "1.7b")
        return with_times(configuration(scale, processor.tokenizer), config)
    return with_times(Qwen3ASRConfig.from_pretrained(resolve(config.start), revision=config.revision), config)


def with_times(settings: Qwen3ASRConfig, config: ModelConfig) -> Qwen3ASRConfig:
    """The settings, with those of the classifier. An aligner keeps its bins and its rounding; the released one was
    trained with floor, and does not say so."""
    if Qwen3ASRForTokenClassification.__name__ in (settings.architectures or ()):
        settings.aligner = getattr(settings, "aligner", "slots")
        settings.time_rounding = getattr(settings, "time_rounding", "floor")
        return settings
    settings.aligner, settings.token_classification_bias = config.aligner, False
    if config.aligner == "letters":
        settings.letters, settings.num_labels = LETTERS, outputs_for(LETTERS)
    else:
        settings.time_rounding, settings.num_labels = "round", config.time_bins or _RELEASED_BINS
    return settings


def _pretrained(config: ModelConfig, settings: Qwen3ASRConfig) -> Qwen3ASRForTokenClassification:
    return Qwen3ASRForTokenClassification.from_pretrained(
        resolve(config.start), revision=config.revision, config=settings, dtype=torch.float32
    )


def _make_room(model: Qwen3ASRForTokenClassification, prompt: AlignmentPrompt) -> None:
    """An embedding for `<timestamp>` if the vocabulary has none, and its id in the configuration."""
    if prompt.slot >= model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(prompt.slot + 1, mean_resizing=False)
    model.config.timestamp_token_id = prompt.slot
