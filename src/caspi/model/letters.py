"""The layout of an aligner by letters: for every 20 ms of audio, which letter is spoken, or none.

    <|audio_start|><|audio_pad|> x n<|audio_end|>

The classifier gives four distributions at every audio position, since a position is 80 ms long. The times of words are
the most likely way through the letters of the text (alignment.viterbi), so that they are in order by construction. The
text is no part of the input. Inside of a word only its start and end are known: its letters are taken as equally long,
which training on many words corrects.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from caspi.audio import Seconds
from caspi.corpus.utterance import Word
from caspi.model.features import TOKENS_PER_CHUNK

FRAME_SECONDS: Seconds = 0.02
FRAMES_PER_POSITION = 4
_FRAMES_PER_CHUNK = 50  # of one second; the last of its 13 positions has two of them
SILENCE = 0
HEBREW, LATIN, DIGIT = "אבגדהוזחטיכלמנסעפצקרשת", "abcdefghijklmnopqrstuvwxyz", "0"
LETTERS = HEBREW + LATIN + DIGIT  # classes 1 to 49; the last class is any other letter
_FINAL = str.maketrans("ךםןףץ", "כמנפצ")
IGNORED = -100


class LetterPrompt:
    """Builds token ids, and the labels of frames."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, letters: str = LETTERS) -> None:
        self.tokenizer, self.letters = tokenizer, letters
        self._class_of = {letter: number for number, letter in enumerate(letters, 1)}
        self.start, self.audio, self.audio_end = (
            int(tokenizer.convert_tokens_to_ids(name)) for name in ("<|audio_start|>", "<|audio_pad|>", "<|audio_end|>")
        )

    @property
    def classes(self) -> int:
        """Silence, the letters, and any other letter."""
        return len(self.letters) + 2

    def ids(self, audio_tokens: int) -> list[int]:
        return [self.start, *[self.audio] * audio_tokens, self.audio_end]

    def spelling(self, word: str) -> list[int]:
        """Classes of a word's letters and digits; at least one. Final forms, case and accents make no difference."""
        plain = unicodedata.normalize("NFKD", word.translate(_FINAL)).casefold()
        other = self.classes - 1
        found = [self._class_of.get(DIGIT if c.isdigit() else c, other) for c in plain if c.isalnum()]
        return found or [other]

    def fit(self, words: Sequence[Word], seconds: Seconds) -> bool:
        """Whether a clip has a frame for each letter of its words; otherwise the text cannot be its own."""
        return sum(len(self.spelling(word.text)) for word in words) * FRAME_SECONDS <= seconds

    def labels(self, words: Sequence[Word], audio_tokens: int) -> np.ndarray:
        """int64 [audio_tokens, FRAMES_PER_POSITION]: the class of every frame; IGNORED for frames that a position does
        not have."""
        is_frame = frames_at(audio_tokens)
        classes = np.full(int(is_frame.sum()), SILENCE, np.int64)
        for word in words:
            spelling = self.spelling(word.text)
            first = round(word.start / FRAME_SECONDS)
            last = min(len(classes), max(first + 1, round(word.end / FRAME_SECONDS)))
            count = last - first
            if count > 0:
                classes[first:last] = np.array(spelling)[np.arange(count) * len(spelling) // count]
        labels = np.full(is_frame.shape, IGNORED, np.int64)
        labels[is_frame] = classes
        return labels


def outputs_for(letters: str) -> int:
    """Outputs of the classifier at one position."""
    return FRAMES_PER_POSITION * (len(letters) + 2)


def frames_at(audio_tokens: int) -> np.ndarray:
    """bool [audio_tokens, FRAMES_PER_POSITION]: which frames a clip's positions have."""
    frame = np.arange(audio_tokens)[:, None] % TOKENS_PER_CHUNK * FRAMES_PER_POSITION + np.arange(FRAMES_PER_POSITION)
    return frame < _FRAMES_PER_CHUNK


def frame_logits(outputs: torch.Tensor, audio_tokens: Sequence[int]) -> list[torch.Tensor]:
    """outputs [all audio tokens, FRAMES_PER_POSITION * classes] of the classifier to [frames, classes] of each clip."""
    classes = outputs.shape[1] // FRAMES_PER_POSITION
    parts = torch.split(outputs.view(-1, FRAMES_PER_POSITION, classes), list(audio_tokens))
    return [
        part[torch.from_numpy(frames_at(count)).to(part.device)]
        for part, count in zip(parts, audio_tokens, strict=True)
    ]
