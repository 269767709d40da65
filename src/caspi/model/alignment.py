"""The layout of a forced alignment, that of Qwen3-ForcedAligner (arXiv:2601.18220):

    <|audio_start|><|audio_pad|> x n<|audio_end|>{word}<timestamp><timestamp>{word}{word}<timestamp><timestamp>...

The model classifies the two slots after a word: the bin of 80 ms in which the word starts, and in which it ends.
There is no chat frame: with one in front, the released model's times come 92 ms later.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from transformers import AddedToken, PreTrainedTokenizerBase

from caspi.audio import Seconds
from caspi.errors import UsageError

TIMESTAMP = "<timestamp>"
# The same layout for transformers' `prepare_forced_aligner_inputs`, saved in every checkpoint: one turn of one audio
# and a text for each word.
CHAT_TEMPLATE = """
{%- for m in messages -%}{%- for c in m.content -%}
{%- if c.type == 'audio' or 'audio' in c or 'audio_url' in c -%}
{{- '<|audio_start|><|audio_pad|><|audio_end|>' -}}
{%- elif c.text is defined -%}{{- c.text + '<timestamp><timestamp>' -}}{%- endif -%}
{%- endfor -%}{%- endfor -%}
"""
BIN_SECONDS: Seconds = 0.08
Rounding = Literal["round", "floor"]


@dataclass(frozen=True, slots=True)
class SlotExample:
    """ids: of the whole sequence. slots: positions in it, two for each word that has them, in order."""

    ids: list[int]
    slots: list[int]


def add_timestamp_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """The id of `<timestamp>`, which recognisers do not have; added to the tokenizer where it is missing. In the
    released vocabulary it becomes 151705, for which the embedding has room."""
    if TIMESTAMP not in tokenizer.get_vocab():
        tokenizer.add_tokens([AddedToken(TIMESTAMP, special=True, normalized=False)])
    return int(tokenizer.convert_tokens_to_ids(TIMESTAMP))


class AlignmentPrompt:
    """Builds token ids, and labels of slots. bins: that the model distinguishes. rounding: of a time to a bin; the
    released model was trained with floor, so that a time is in the middle of its bin on average."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, bins: int, rounding: Rounding = "round") -> None:
        self.tokenizer, self.bins, self.rounding = tokenizer, bins, rounding
        self.slot = add_timestamp_token(tokenizer)
        self.start, self.audio, self.audio_end = (
            int(tokenizer.convert_tokens_to_ids(name)) for name in ("<|audio_start|>", "<|audio_pad|>", "<|audio_end|>")
        )
        if self.audio == tokenizer.unk_token_id or self.audio is None:
            raise UsageError("the tokenizer has no token <|audio_pad|>: it is not a Qwen3-ASR tokenizer")

    @property
    def max_seconds(self) -> Seconds:
        """The longest clip whose times have a bin."""
        return self.bins * BIN_SECONDS

    def example(self, audio_tokens: int, words: Sequence[str], slotted: Sequence[bool] | None = None) -> SlotExample:
        """words: as language.spoken_words has them. slotted: whether each word has slots; None: all."""
        ids = [self.start, *[self.audio] * audio_tokens, self.audio_end]
        slots: list[int] = []
        for number, word in enumerate(words):
            ids += self.tokenizer.encode(word, add_special_tokens=False, split_special_tokens=True)
            if slotted is None or slotted[number]:
                slots += [len(ids), len(ids) + 1]
                ids += [self.slot, self.slot]
        return SlotExample(ids, slots)

    def text_tokens(self, texts: Sequence[Sequence[str]]) -> np.ndarray:
        """int64 [n]: tokens of sequences of words with all slots, without those of the audio."""
        return np.array([len(self.example(0, words).ids) for words in texts], np.int64)

    def bin_of(self, seconds: Seconds) -> int:
        """The label of a time."""
        exact = max(0.0, seconds) / BIN_SECONDS
        return min(self.bins - 1, int(exact + 0.5 if self.rounding == "round" else exact))

    def time_of(self, bin_number: float) -> Seconds:
        """The time that a bin stands for: with floor its middle, not its beginning."""
        return (bin_number + (0.5 if self.rounding == "floor" else 0.0)) * BIN_SECONDS
