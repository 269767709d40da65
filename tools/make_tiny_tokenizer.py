"""The tokenizer of `tiny`: a small byte-level BPE that carries the real special tokens and chat layout.

`python tools/make_tiny_tokenizer.py OUT` makes it again from word lists (extra `base`). Like the real tokenizer it
knows Hebrew letters; the model that starts from it has never heard Hebrew.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterable
from pathlib import Path

from tokenizers import ByteLevelBPETokenizer
from transformers import AddedToken, Qwen2Tokenizer

from caspi.corpus.sources.synthetic import frequent_words
from caspi.corpus.synthesis.hebrew_sentences import VOCABULARY
from caspi.language.hebrew import without_niqqud
from caspi.model.architectures import configuration
from caspi.model.loading import make_processor

BASE_LANGUAGES = ("Spanish", "Italian", "Portuguese", "German", "Dutch", "Polish", "Turkish", "Finnish", "Greek",
                  "Indonesian")  # fmt: skip
VOCABULARY_SIZE = 640  # byte-level BPE pieces, special tokens not counted

_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|audio_start|>", "<|audio_end|>", "<|audio_pad|>")
_MARK = "<asr_text>"  # an added token, but not a special one, in the released tokenizer too

_HEBREW_LETTERS = "אבגדהוזחטיךכלםמןנסעףפץצקרשת"


def _texts() -> Iterable[str]:
    """Words of the base languages, the demo's Hebrew spelling, and what stands in every prompt."""
    for name in BASE_LANGUAGES:
        yield from (f" {word}" for word in frequent_words(name, count=4_000))
        yield from [f"system user assistant language {name} Hebrew"] * 1_000
    # Often enough that every letter, alone and after a space, is one token.
    yield from [f" {letter}" for letter in _HEBREW_LETTERS] * 1_000
    yield from [f"{letter}{letter}" for letter in _HEBREW_LETTERS] * 1_000
    yield from (f" {without_niqqud(word)}" for word in sorted(VOCABULARY))


def make_tokenizer() -> Qwen2Tokenizer:
    """Trains the BPE; the same word lists give the same tokenizer."""
    bpe = ByteLevelBPETokenizer(add_prefix_space=False)
    bpe.train_from_iterator(_texts(), vocab_size=VOCABULARY_SIZE, min_frequency=2, show_progress=False)
    with tempfile.TemporaryDirectory() as folder:
        bpe.save_model(folder)
        vocabulary = json.loads((Path(folder) / "vocab.json").read_text(encoding="utf-8"))
        lines = (Path(folder) / "merges.txt").read_text(encoding="utf-8").splitlines()
    merges = [tuple(line.split(" ")) for line in lines if not line.startswith("#version")]
    tokenizer = Qwen2Tokenizer(
        vocab=vocabulary,
        merges=merges,
        unk_token=None,
        bos_token=None,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens={
            "audio_bos_token": "<|audio_start|>",
            "audio_eos_token": "<|audio_end|>",
            "audio_token": "<|audio_pad|>",
        },
    )
    tokenizer.add_special_tokens({"additional_special_tokens": [*_SPECIAL]}, replace_extra_special_tokens=False)
    tokenizer.add_tokens([AddedToken(_MARK, special=False, normalized=False)])
    return tokenizer


def main(out: str) -> None:
    """Writes processor and configuration of `tiny`, no weights: `caspi train recipes/base.yaml` makes those."""
    tokenizer = make_tokenizer()
    make_processor(tokenizer).save_pretrained(out)
    configuration("tiny", tokenizer).save_pretrained(out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", help="folder to write into")
    main(parser.parse_args().out)
