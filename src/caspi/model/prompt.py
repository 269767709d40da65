"""The layout of prompt and target, defined only here.

    <|im_start|>system\n{context}<|im_end|>\n
    <|im_start|>user\n<|audio_start|><|audio_pad|> x n<|audio_end|><|im_end|>\n
    <|im_start|>assistant\nlanguage Hebrew<asr_text>{text}<|im_end|>

Pieces are tokenised separately and concatenated, so that the target tokens are known by construction.
The result equals tokenising the whole string, because a special token ends every piece.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedTokenizerBase
from transformers.convert_slow_tokenizer import bytes_to_unicode

from caspi.errors import UsageError
from caspi.language.codes import NO_SPEECH

ASR_TEXT = "<asr_text>"
_BYTE_OF = {character: byte for byte, character in bytes_to_unicode().items()}  # of byte-level BPE
# The same layout for transformers' own `apply_chat_template`, saved in every checkpoint: system text, one audio
# placeholder per clip, the assistant's text unchanged.
CHAT_TEMPLATE = """
{%- macro text(m) -%}
{%- if m.content is string -%}{{ m.content }}
{%- else -%}{%- for c in m.content if c.text is defined -%}{{ c.text }}{%- endfor -%}{%- endif -%}
{%- endmacro -%}
{{- '<|im_start|>system\\n' -}}
{%- for m in messages if m.role == 'system' -%}{{ text(m) }}{%- endfor -%}
{{- '<|im_end|>\\n<|im_start|>user\\n' -}}
{%- for m in messages if m.content is not string -%}
{%- for c in m.content if c.type == 'audio' or 'audio' in c or 'audio_url' in c -%}
{{- '<|audio_start|><|audio_pad|><|audio_end|>' -}}
{%- endfor -%}
{%- endfor -%}
{{- '<|im_end|>\\n' -}}
{%- for m in messages if m.role == 'assistant' -%}
{{- '<|im_start|>assistant\\n' -}}
{% generation %}{{- text(m) + '<|im_end|>\\n' -}}{% endgeneration %}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""


@dataclass(frozen=True, slots=True)
class Example:
    """Token ids of prompt and target. The target is language, text and end of turn; only its tokens have a loss."""

    prompt: list[int]
    target: list[int]


class Prompt:
    """Builds token ids for one tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self.end = self._special("<|im_end|>")
        self.pad = self._special("<|endoftext|>")
        self.audio = self._special("<|audio_pad|>")
        self.asr_text = self._special(ASR_TEXT)
        self._before_audio = self._encode("<|im_end|>\n<|im_start|>user\n<|audio_start|>")
        self._after_audio = self._encode("<|audio_end|><|im_end|>\n<|im_start|>assistant\n")
        self._added = {token: "" if t.special else t.content for token, t in tokenizer.added_tokens_decoder.items()}

    def _special(self, token: str) -> int:
        token_id = self.tokenizer.convert_tokens_to_ids(token)
        if not isinstance(token_id, int) or self.tokenizer.convert_ids_to_tokens(token_id) != token:
            raise UsageError(f"the tokenizer has no token {token}: it is not a Qwen3-ASR tokenizer")
        return token_id

    def _encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False)

    def _encode_plain(self, text: str) -> list[int]:
        """Token ids of a text from a user or corpus; special tokens written in it are plain text."""
        return self.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)

    def text_tokens(self, text: str) -> list[int]:
        """Token ids of a transcript, or of the beginning of one, without the language before it."""
        return self._encode_plain(text)

    def prefix(self, audio_tokens: int, context: str = "") -> list[int]:
        """Token ids of everything before the model's answer."""
        start = self._encode("<|im_start|>") + self._encode_plain(f"system\n{context}")
        return [*start, *self._before_audio, *[self.audio] * audio_tokens, *self._after_audio]

    def language_prefix(self, language: str) -> list[int]:
        """Token ids that force the language when they follow `prefix`."""
        return [*self._encode(f"language {language}"), self.asr_text]

    def example(self, audio_tokens: int, text: str, language: str, context: str = "") -> Example:
        """Prompt and target of one utterance."""
        target = [*self.language_prefix(language), *self._encode_plain(text), self.end]
        return Example(self.prefix(audio_tokens, context), target)

    def text_lengths(self, texts: list[str]) -> np.ndarray:
        """int64 [n]: tokens of every text alone; a million texts take ten seconds."""
        backend = self.tokenizer.backend_tokenizer
        previous, backend.encode_special_tokens = backend.encode_special_tokens, True  # as in `_encode_plain`
        try:
            return np.array([len(e.ids) for e in backend.encode_batch_fast(texts, add_special_tokens=False)], np.int64)
        finally:
            backend.encode_special_tokens = previous

    def target_lengths(self, texts: list[str], languages: list[str]) -> np.ndarray:
        """int64 [n]: target tokens of every utterance."""
        overhead = {language: len(self.language_prefix(language)) + 1 for language in set(languages)}
        return self.text_lengths(texts) + np.array([overhead[language] for language in languages], np.int64)

    def text_start(self, tokens: Sequence[int]) -> int:
        """Where the text begins in generated tokens: after the language, if the model named it."""
        return tokens.index(self.asr_text) + 1 if self.asr_text in tokens else 0

    def token_bytes(self, token: int) -> bytes:
        """What a token writes into the text, in UTF-8; a character may be spread over several tokens. Special tokens
        write nothing."""
        if token in self._added:
            return self._added[token].encode()
        piece = self.tokenizer.convert_ids_to_tokens(token) or ""
        return bytes(_BYTE_OF[character] for character in piece)

    def parse(self, tokens: list[int]) -> tuple[str | None, str]:
        """Generated tokens to (language or None, text). Repetitions are kept: removing a loop would hide an error."""
        content = [token for token in tokens if token not in (self.pad, self.end)]
        if self.asr_text in content:
            split = content.index(self.asr_text)
            answer_prefix = self.tokenizer.decode(content[:split], skip_special_tokens=True).strip()
            language = answer_prefix.removeprefix("language ").strip()
            text = self.tokenizer.decode(content[split + 1 :], skip_special_tokens=True)
            return (None if language in ("", NO_SPEECH) else language), text.strip()
        return None, self.tokenizer.decode(content, skip_special_tokens=True).strip()
