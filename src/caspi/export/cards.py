"""The model card of a checkpoint in the layout of qwen-asr: the native card with another section on use."""

from __future__ import annotations

import re

from huggingface_hub import ModelCard

from caspi.audio import Seconds
from caspi.language import named
from caspi.model.eight_bit import Format
from caspi.training.checkpoint.model_card import clip_limit_notice

_USE = """## Use
```python
from qwen_asr import Qwen3ASRModel

model = Qwen3ASRModel.from_pretrained("REPOSITORY")
print(model.transcribe(audio="clip.wav")[0].text)
```
qwen-asr has a fixed list of languages and refuses other names: omit `language`, and the model identifies it itself.
With vLLM, the language can be given in the prompt:
```python
import soundfile
from vllm import LLM, SamplingParams

prompt = (
    "<|im_start|>system\\n<|im_end|>\\n<|im_start|>user\\n<|audio_start|><|audio_pad|><|audio_end|><|im_end|>\\n"
    "<|im_start|>assistant\\nlanguage {language}<asr_text>"
)
request = {{"prompt": prompt, "multi_modal_data": {{"audio": soundfile.read("clip.wav", dtype="float32")}}}}
print(LLM("REPOSITORY").generate(request, SamplingParams(temperature=0, max_tokens=512))[0].outputs[0].text)
```
vLLM's `/v1/audio/transcriptions` omits the empty system turn that the model was trained with; use
`/v1/chat/completions` with an empty system message. llama.cpp reads what its `convert_hf_to_gguf.py` makes of these
files, with and without `--mmproj`.
{limit}
"""
_SECTION = re.compile(r"^## Use\n.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
_PROMPT = re.compile(r'"language ([^"<]+)<asr_text>"')  # in the code of the native card


def original_card(native: str, longest: Seconds | None) -> str:
    """The card of the native layout with another section on use."""
    found = _PROMPT.search(native)  # the prompt in the card's example names the language as the model knows it
    spoken = found[1] if found else _language_of_header(native)
    use = _USE.format(language=spoken, limit=clip_limit_notice(longest))
    text = native.replace("library_name: transformers", "library_name: qwen-asr")
    return _SECTION.sub(lambda _: use + "\n", text) if _SECTION.search(text) else f"{text}\n{use}"


def eight_bit_card(card: str, form: Format) -> str:
    """The card with a notice before the section on use."""
    notice = (
        f"**The decoder's linear layers are in eight bits** ({form}, in the layout of compressed-tensors). vLLM and "
        "caspi load it as it is; transformers needs the package `compressed-tensors`. Training does not start from "
        "it.\n\n"
    )
    return card.replace("## Use\n", f"{notice}## Use\n", 1) if "## Use\n" in card else f"{card}\n{notice}"


_ADAPTER_USE = """## Use
These are the adapters alone; adapter_config.json names the model that they belong to (`BASE` here).
```python
from peft import PeftModel
from transformers import AutoProcessor, Qwen3ASRForConditionalGeneration

base = Qwen3ASRForConditionalGeneration.from_pretrained("BASE")
model = PeftModel.from_pretrained(base, "REPOSITORY").merge_and_unload()
processor = AutoProcessor.from_pretrained("BASE")
```
With vLLM: `vllm serve BASE --enable-lora --lora-modules caspi=REPOSITORY` (adapters of the decoder only, not DoRA).

"""


def adapter_card(card: str) -> str:
    """The card of a checkpoint, for its adapters alone."""
    text = card.replace("library_name: transformers", "library_name: peft")
    return _SECTION.sub(lambda _: _ADAPTER_USE, text) if _SECTION.search(text) else f"{text}\n{_ADAPTER_USE}"


def _language_of_header(card: str) -> str:
    """The language that the card's header names by its code; Hebrew if it names none."""
    code = ModelCard(card, ignore_metadata_errors=True).data.get("language")
    return named(code) if isinstance(code, str) else "Hebrew"
