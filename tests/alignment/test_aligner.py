"""The aligner's layout and forward pass against transformers' own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoProcessor, Qwen3ASRForTokenClassification

from caspi.corpus.utterance import Word
from caspi.model.aligner import LoadedAligner, load_aligner
from caspi.model.alignment import AlignmentPrompt, Rounding
from caspi.model.batch import Item, collate
from caspi.model.config import ModelConfig
from caspi.model.forward import evaluation_mode, forward_audio, sequence_hidden
from caspi.model.loading import load_tokenizer
from caspi.training.checkpoint.files import save_model

WORDS = (Word("שלום", 0.1, 0.5), Word("בית־ספר", 0.6, 1.24), Word("ab", 1.3, 1.9))


def clip(seconds: float, seed: int = 0) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).standard_normal(int(16_000 * seconds)).astype(np.float32)


def test_each_word_is_followed_by_its_two_slots(aligner: LoadedAligner) -> None:
    prompt = aligner.prompt
    example = prompt.example(3, ["שלום", "ab"], [True, False])
    text = prompt.tokenizer.decode(example.ids)
    assert text == "<|audio_start|>" + "<|audio_pad|>" * 3 + "<|audio_end|>שלום<timestamp><timestamp>ab"
    assert [example.ids[slot] for slot in example.slots] == [prompt.slot] * 2


def test_labels_are_bins_at_the_slots_themselves(aligner: LoadedAligner) -> None:
    """Trap: a recogniser's labels are shifted by one position, an aligner's are not."""
    batch = collate([Item(clip(2.0), "", "", words=WORDS, slotted=(True, False, True))], aligner.prompt)
    assert batch.labels.tolist() == [1, 6, 16, 24]  # 0.1, 0.5, 1.3, 1.9 s over 80 ms
    at_labels = batch.sequences.input_ids[batch.sequences.label_positions]
    assert at_labels.tolist() == [aligner.prompt.slot] * 4


@given(st.floats(0.0, 39.9), st.sampled_from(["round", "floor"]))
def test_a_bin_is_at_most_half_a_bin_from_its_time(aligner: LoadedAligner, seconds: float, rounding: Rounding) -> None:
    prompt = AlignmentPrompt(aligner.prompt.tokenizer, 500, rounding)
    assert abs(prompt.time_of(prompt.bin_of(seconds)) - seconds) <= 0.0401


def test_the_encoder_and_decoder_are_those_of_the_recogniser(aligner: LoadedAligner, tiny) -> None:  # type: ignore[no-untyped-def]
    before, after = dict(tiny.model.named_parameters()), dict(aligner.model.named_parameters())
    for name, parameter in before.items():
        if name != "lm_head.weight":
            assert torch.equal(after[name][: len(parameter)], parameter), name
    assert after.keys() - before.keys() == {"score.weight"}
    again = load_aligner(ModelConfig(task="align", aligner="slots", time_bins=500))
    assert torch.equal(again.model.score.weight, aligner.model.score.weight), "the same seed, the same classifier"


@pytest.fixture(scope="module")
def saved(aligner: LoadedAligner, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("aligner")
    save_model(aligner, {name: p.detach() for name, p in aligner.model.named_parameters()}, folder, 30.0)
    return folder


def test_plain_transformers_aligns_with_a_checkpoint(aligner: LoadedAligner, saved: Path) -> None:
    """Its own classes, from files alone: the same ids, and the same times."""
    model = Qwen3ASRForTokenClassification.from_pretrained(saved, attn_implementation="sdpa").eval()
    processor = AutoProcessor.from_pretrained(saved)
    samples, words = clip(11.0), ["אור", "גדול", "ביום"]
    inputs, lists = processor.prepare_forced_aligner_inputs(audio=samples, transcript=" ".join(words))
    assert lists == [words]
    item = Item(samples, "", "", words=tuple(Word(word, 0.0, 0.0) for word in words))
    batch = collate([item], aligner.prompt)
    assert inputs["input_ids"][0].tolist() == batch.sequences.input_ids.tolist()
    with torch.no_grad(), evaluation_mode(aligner.model):
        theirs = model(**inputs).logits[0, batch.sequences.label_positions]
        ours = aligner.model.score(sequence_hidden(aligner.model, forward_audio(aligner.model, batch), batch.sequences))
    assert torch.allclose(ours, theirs, atol=2e-3)


def test_a_checkpoint_keeps_its_bins_and_rounding(saved: Path) -> None:
    loaded = load_aligner(ModelConfig(task="align", start=str(saved)))
    assert (loaded.prompt.bins, loaded.prompt.rounding) == (500, "round")


def test_a_released_checkpoint_was_trained_with_floor(saved: Path, tmp_path: Path) -> None:
    """It does not say how times were rounded."""
    shutil.copytree(saved, tmp_path / "released")
    config = json.loads((tmp_path / "released" / "config.json").read_text())
    del config["time_rounding"]
    (tmp_path / "released" / "config.json").write_text(json.dumps(config))
    assert load_aligner(ModelConfig(task="align", start=str(tmp_path / "released"))).prompt.rounding == "floor"


def test_the_timestamp_token_of_the_released_vocabulary(real_tokenizer_folder: Path) -> None:
    """Trap: it is not in the recogniser's tokenizer; added, it is the one that the released aligner has."""
    assert AlignmentPrompt(load_tokenizer(real_tokenizer_folder), 5_000).slot == 151_705
