"""Word starts from a recogniser's own attention, as Whisper's users get them: a baseline for aligners.

    python benchmarks/attention_alignment.py RECOGNISER CORPUS [--split test] [--utterances 200] [--aligner MODEL]

Qwen3-ASR has no cross-attention; its text attends to the audio inside of the decoder. The recogniser reads each clip
with its text, and the attention of the positions that predict the text, to the audio, is normalised, smoothed and
aligned by dynamic time warping, as openai-whisper does. Its heads are chosen in favour of the baseline: the ten whose
own word starts are best on thirty other utterances. Prints the accuracy of starts of attention, of an aligner if one is
given, and of evenly spaced words, on the same utterances, one JSON line each.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from transformers import AutoProcessor, Qwen3ASRForConditionalGeneration

from caspi.alignment.accuracy import accuracy, evenly_spaced
from caspi.alignment.align import Aligner, AlignmentRequest
from caspi.corpus.store import Corpus
from caspi.corpus.utterance import Utterance
from caspi.model.config import ModelConfig
from caspi.model.loading import load, resolve

_CHOOSING, _HEADS = 30, 10
_SMOOTHED = 7  # positions, as in openai-whisper


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recogniser")
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--split", default="test")
    parser.add_argument("--utterances", type=int, default=200)
    parser.add_argument("--aligner")
    options = parser.parse_args()
    corpus = Corpus.open(options.corpus, options.split)
    rows = [row for row in range(len(corpus)) if _has_times(corpus.utterance(row))]
    chosen, rows = rows[:_CHOOSING], rows[_CHOOSING:][: options.utterances]
    reader = _Reader(options.recogniser)
    heads = _best_heads(reader, corpus, chosen)
    true = [[word.start for word in corpus.utterance(row).words] for row in rows]
    groups = [corpus.utterance(row).group for row in rows for _ in corpus.utterance(row).words]
    found = {"attention": [], "evenly spaced": []}
    for row in rows:
        attention = reader(corpus.samples(row), corpus.utterance(row))
        found["attention"].append(reader.starts(np.mean([attention[head] for head in heads], axis=0)))
        utterance = corpus.utterance(row)
        found["evenly spaced"].append(evenly_spaced(len(utterance.words), utterance.seconds)[0])
    if options.aligner:
        requests = [
            AlignmentRequest(corpus.samples(row), corpus.utterance(row).text, corpus.utterance(row).language)
            for row in rows
        ]
        aligned = Aligner.of(options.aligner).align(requests)
        found[options.aligner] = [[word.start for word in one.words] for one in aligned]
    for name, starts in found.items():
        flat = [start for one in starts for start in one]
        print(json.dumps({"from": name, **asdict(accuracy(flat, [start for one in true for start in one], groups))}))


def _has_times(utterance: Utterance) -> bool:
    return bool(utterance.words) and [word.text for word in utterance.words] == utterance.text.split()


class _Reader:
    """A recogniser in transformers, with its attention."""

    def __init__(self, model: str) -> None:
        where = resolve(model)
        self._processor: Any = AutoProcessor.from_pretrained(where)
        self._model = Qwen3ASRForConditionalGeneration.from_pretrained(where, attn_implementation="eager").eval()
        self._prompt = load(ModelConfig(start=model)).prompt
        user = [{"role": "user", "content": [{"type": "audio", "audio": ""}]}]
        self._before = self._processor.apply_chat_template(user, add_generation_prompt=True, tokenize=False)
        self._first: list[int] = []  # of the last clip: the token with which each word begins
        self._seconds = 0.0

    @torch.inference_mode()
    def __call__(self, samples: np.ndarray, utterance: Utterance) -> np.ndarray:
        """Attention float64 [layers * heads, tokens of the text, audio positions], smoothed and normalised."""
        text = f"{self._before}language {utterance.language}<asr_text>{utterance.text}"
        inputs = self._processor(text=[text], audio=[samples], return_tensors="pt")
        ids = inputs["input_ids"][0].tolist()
        start = ids.index(self._prompt.asr_text) + 1
        audio = [place for place, token in enumerate(ids) if token == self._prompt.audio]
        layers = self._model(**inputs, output_attentions=True).attentions
        found = torch.cat([layer[0] for layer in layers])[:, start - 1 : len(ids) - 1][:, :, audio].double().numpy()
        self._first = self._first_tokens(ids[start:], utterance)
        self._seconds = utterance.seconds
        normalised = (found - found.mean(axis=1, keepdims=True)) / (found.std(axis=1, keepdims=True) + 1e-9)
        padded = np.pad(normalised, ((0, 0), (0, 0), (_SMOOTHED // 2, _SMOOTHED // 2)), mode="edge")
        return np.median(sliding_window_view(padded, _SMOOTHED, axis=2), axis=3)

    def _first_tokens(self, tokens: list[int], utterance: Utterance) -> list[int]:
        """The token that holds the first byte of each word."""
        ends = np.cumsum([len(self._prompt.token_bytes(token)) for token in tokens])
        places, place = [], 0
        for word in utterance.words:
            place = utterance.text.encode().index(word.text.encode(), place)
            places.append(int(np.searchsorted(ends, place, side="right")))
            place += len(word.text.encode())
        return places

    def starts(self, attention: np.ndarray) -> list[float]:
        """Seconds of each word's start, from [tokens, audio positions] by dynamic time warping."""
        first = _first_positions(-attention)
        return [float(first[token]) * self._seconds / attention.shape[1] for token in self._first]


def _first_positions(cost: np.ndarray) -> np.ndarray:
    """The first audio position of each token on the cheapest way through cost [tokens, positions]."""
    tokens, positions = cost.shape
    total = np.full((tokens + 1, positions + 1), np.inf)
    total[0, 0] = 0.0
    back = np.zeros((tokens + 1, positions + 1), np.int8)
    for token in range(1, tokens + 1):
        for position in range(1, positions + 1):
            ways = (total[token - 1, position - 1], total[token - 1, position], total[token, position - 1])
            back[token, position] = way = int(np.argmin(ways))
            total[token, position] = cost[token - 1, position - 1] + ways[way]
    first = np.zeros(tokens, np.int64)
    token, position = tokens, positions
    while token > 0 and position > 0:
        first[token - 1] = position - 1
        way = back[token, position]
        token, position = token - (way != 2), position - (way != 1)
    return first


def _best_heads(reader: _Reader, corpus: Corpus, rows: list[int]) -> list[int]:
    errors: list[list[float]] = []
    for row in rows:
        utterance = corpus.utterance(row)
        true = np.array([word.start for word in utterance.words])
        attention = reader(corpus.samples(row), utterance)
        errors.append([float(np.abs(np.array(reader.starts(one)) - true).mean()) for one in attention])
    return np.argsort(np.mean(errors, axis=0))[:_HEADS].tolist()


if __name__ == "__main__":
    main()
