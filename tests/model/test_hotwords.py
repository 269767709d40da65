"""The context that the model gets beside the audio, decoded from the tokens of real batches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from caspi import commands
from caspi.augmentation.config import Augmentation, NoSpeech
from caspi.corpus.store import Corpus
from caspi.corpus.utterance import Word
from caspi.errors import UsageError
from caspi.model.config import Hotwords
from caspi.model.hotwords import HotwordPool
from caspi.model.loading import LoadedModel
from caspi.model.timestamps import text_with_times
from caspi.randomness import generator
from caspi.training.config import TrainConfig, stage_seed
from caspi.training.data.dataset import TrainingSet
from caspi.training.data.stage_plan import plan_stage
from caspi.training.data.steps import PlannedSteps
from caspi.training.planning.plan import decoded_targets
from tests.conftest import tone
from tests.support import metrics, run_recipe, write_manifest

SEED = 5
TEXTS = [f"אנשים רבים ראו את מילה{number:03d} ואת שם{number:03d}, ליד הים" for number in range(200)]


def configured(batch: int, **options: object) -> TrainConfig:
    stage_options = {"mix": "m"} if "mixes" in options else {}
    return TrainConfig.model_validate({
        "path": "x", "effective_batch": batch, "max_batch_seconds": 60, "max_batch_tokens": 1_000_000,
        "max_seconds": 15,
        "stages": [{"name": "s", "groups": {"projector": 1e-3}, **stage_options}], **options,
    })  # fmt: skip


def sentences(
    tiny: LoadedModel, corpus: Path, batch: int = 8, **options: object
) -> dict[int, tuple[str, str, torch.Tensor]]:
    """System turn, assistant's turn and samples of every utterance in one epoch."""
    config, seed = configured(batch, **options), stage_seed(SEED, 0)
    [stage] = config.stages
    data = TrainingSet.to_train_on(Corpus.open(corpus, "train"), tiny.prompt, config, SEED)
    plans, steps = plan_stage(data, config, stage, 1, seed)
    planned = PlannedSteps(data, plans, steps, 0, tiny.prompt, config, stage, seed)
    found = {}
    for index in range(len(planned)):
        for micro in planned[index].batches:
            packed = micro.sequences
            for place, row in enumerate(micro.rows):
                ids = packed.input_ids[packed.bounds[place] : packed.bounds[place + 1]].tolist()
                most = plans[0].lengths.sequence_tokens[row]
                assert len(ids) <= most + 3 * (config.hotwords is not None)
                text = tiny.processor.tokenizer.decode(ids)
                system = text.partition("system\n")[2].partition("<|im_end|>")[0]
                length = int(micro.audio.frames[place]) * 160
                samples = micro.audio.samples[place, 200 : 200 + length]
                found[row] = system, text.partition("assistant\n")[2], samples
    return found


def test_hotwords_are_rare_words_of_the_text_mixed_with_those_of_others() -> None:
    config = Hotwords(probability=1, words=(1, 2), distractors=(3, 3), absent=0, at_most=2)
    pool = HotwordPool(TEXTS, config)
    places = set()
    for row, text in enumerate(TEXTS):
        given = pool.draw(text, generator(0, 0, row, "hotwords")).split(", ")
        own = [word for word in given if word in text]
        assert 1 <= len(own) <= 2
        assert len(given) - len(own) == 3
        assert all(word.startswith(("מילה", "שם")) for word in given), "common words are not hotwords"
        assert len(set(given)) == len(given)
        places.add(given.index(own[0]))
    assert len(places) > 3, "the position does not reveal its own words"


def test_the_probabilities_of_hotwords_and_of_only_distractors() -> None:
    pool = HotwordPool(TEXTS, Hotwords(probability=0.5, words=(1, 1), distractors=(2, 2), absent=0.3, at_most=2))
    given = [pool.draw(TEXTS[row % 200], generator(0, row, row, "hotwords")) for row in range(1_000)]
    with_hotwords = [(TEXTS[row % 200], words.split(", ")) for row, words in enumerate(given) if words]
    assert 440 < len(with_hotwords) < 560
    without = sum(not any(word in text for word in words) for text, words in with_hotwords)
    assert 0.22 < without / len(with_hotwords) < 0.38


def test_a_corpus_without_rare_words_is_refused() -> None:
    with pytest.raises(UsageError, match=r"train.hotwords: no word occurs in 2 texts or fewer: increase at_most"):
        HotwordPool(["אחד שתיים שלוש"] * 5, Hotwords(at_most=2))


def test_hotwords_are_only_in_the_system_turn(tiny: LoadedModel, small_corpus: Path) -> None:
    plain = sentences(tiny, small_corpus)
    config = Hotwords(probability=1, words=(1, 2), distractors=(2, 2), absent=0, at_most=5)
    found = sentences(tiny, small_corpus, hotwords=config)
    assert all(found[row][1] == plain[row][1] for row in plain), "the target does not change"
    assert all(not plain[row][0] and found[row][0] for row in plain)
    assert found.keys() == sentences(tiny, small_corpus, batch=4, hotwords=config).keys()
    assert all(
        sentences(tiny, small_corpus, batch=4, hotwords=config)[row][0] == found[row][0] for row in list(found)[:5]
    )


def test_the_target_of_noise_is_no_speech(tiny: LoadedModel, small_corpus: Path) -> None:
    plain = sentences(tiny, small_corpus)
    found = sentences(tiny, small_corpus, no_speech=NoSpeech(share=0.5, below_db=(40, 40)))
    silent = [row for row, (_, target, _) in found.items() if target == "language None<asr_text><|im_end|>"]
    assert 14 < len(silent) < 34
    for row in found:
        assert len(found[row][2]) == len(plain[row][2])
        if row in silent:
            size = float(found[row][2].square().mean().sqrt())
            assert 20 * np.log10(size) == pytest.approx(-40, abs=0.5)
        else:
            assert found[row][1] == plain[row][1]
            assert torch.equal(found[row][2], plain[row][2])


def test_a_run_with_no_speech_and_hotwords_trains(small_corpus: Path, tmp_path: Path) -> None:
    made = run_recipe(
        tmp_path, small_corpus, "train.no_speech={share: 0.3}", "train.hotwords={at_most: 5}", "train.previous_text=0.5"
    )  # fmt: skip
    commands.train.run(made)
    assert np.isfinite(metrics(tmp_path / "train", "loss")).all()


def test_a_folder_without_noise_is_an_error_before_training(small_corpus: Path, tmp_path: Path) -> None:
    made = run_recipe(tmp_path, small_corpus, f"train.no_speech={{folder: {tmp_path}}}")
    with pytest.raises(UsageError, match=r"train.no_speech.folder: .* holds no"):
        commands.train.run(made)


WORDS = [("שלום", 0.1, 0.4), ("לכולם", 0.45, 0.9), ("ותודה", 1.3, 1.66)]


def test_times_of_words_surround_phrases_between_pauses() -> None:
    words = [Word(*word) for word in WORDS]
    assert text_with_times("שלום לכולם ותודה", (), words) == "<0.1>שלום לכולם<0.9> <1.3>ותודה<1.7>"
    phrases = (Word("שלום לכולם", 0.0, 1.0), Word("ותודה", 1.0, 2.0))
    assert text_with_times("שלום לכולם ותודה", phrases, words) == "<0.0>שלום לכולם<1.0> <1.0>ותודה<2.0>"
    whole = (Word("שלום לכולם ותודה", 0.0, 2.0),)
    assert text_with_times("שלום לכולם ותודה", whole, words) == "<0.1>שלום לכולם<0.9> <1.3>ותודה<1.7>"
    assert text_with_times("שלום לכולם ותודה", whole, ()) == "<0.0>שלום לכולם ותודה<2.0>"
    assert text_with_times("שלום לכולם, ותודה", phrases, words) is None
    assert text_with_times("", (), ()) is None


def test_utterances_with_the_timestamp_prompt_have_correct_times(tiny: LoadedModel, tmp_path: Path) -> None:
    """Half of the utterances, another half in every epoch. They get no speed or silence, which would shift times."""
    clips = [(tone(2.0, seed=n), "שלום לכולם ותודה") for n in range(24)]
    verse = {"start": 0.0, "end": 2.0, "text": "שלום לכולם ותודה", "words": WORDS}
    write_manifest(tmp_path, clips, segments=[verse])
    made = run_recipe(
        tmp_path, tmp_path / "corpus", f"corpus.sources=[{{kind: manifest, path: {tmp_path}/m.jsonl, split: train}}]",
        "corpus.evaluation=[]", "corpus.filters={max_repeats: 100}",
    )  # fmt: skip
    commands.prepare.run(made)
    moving = Augmentation.model_validate({"speed": [0.8], "silence": {"probability": 1.0, "seconds": [0.5, 0.5]}})
    plain = sentences(tiny, tmp_path / "corpus", batch=4, augment=moving)
    found = sentences(tiny, tmp_path / "corpus", batch=4, augment=moving, timestamps=0.5)
    with_times = [row for row, (system, *_) in found.items() if system == "timestamps"]
    assert 5 < len(with_times) < 19
    for row, (system, target, samples) in found.items():
        if row in with_times:
            wanted = "<0.1>שלום לכולם<0.9> <1.3>ותודה<1.7>"
            assert len(samples) == 32_000
        else:
            wanted = "שלום לכולם ותודה"
            assert system == ""
            assert len(samples) == len(plain[row][2]) > 40_000
        assert target == f"language Hebrew<asr_text>{wanted}<|im_end|>"
    options = {"augment": moving, "timestamps": 0.5, "no_speech": NoSpeech(share=0.3)}
    config, found = configured(4, **options), sentences(tiny, tmp_path / "corpus", batch=4, **options)
    data = TrainingSet.to_train_on(Corpus.open(tmp_path / "corpus", "train"), tiny.prompt, config, SEED)
    lengths = data.epoch_lengths(config, config.stages[0], stage_seed(SEED, 0), 0)
    targets = [one.target for one in decoded_targets(data, tiny.prompt, lengths, count=24)]
    assert targets == [found[row][1] for row in range(24)]
    assert all(any(sign in target for target in targets) for sign in ("<0.1>", ">שלום", "language None"))


def test_a_corpus_without_times_is_an_error_before_training(tmp_path: Path) -> None:
    write_manifest(tmp_path, [(tone(2.0, seed=n), "שלום לכולם") for n in range(6)])
    made = run_recipe(
        tmp_path, tmp_path / "corpus", f"corpus.sources=[{{kind: manifest, path: {tmp_path}/m.jsonl, split: train}}]",
        "corpus.evaluation=[]", "corpus.filters={max_repeats: 100}", "train.timestamps=0.5",
    )  # fmt: skip
    commands.prepare.run(made)
    with pytest.raises(UsageError, match=r"train.timestamps: corpus .* has no utterance with times"):
        commands.train.run(made)
    assert not (tmp_path / "train").exists()


def test_another_language_is_replayed_with_its_own_language_token(tiny: LoadedModel, tmp_path: Path) -> None:
    """Replay is a source of the mix with a share of each epoch; its utterances keep their language."""
    for name, language, text, count in (
        ("new", "Hebrew", "שלום לכולם", 12), ("known", "Spanish", "muchas gracias", 8),
    ):  # fmt: skip
        clips = [(tone(1.0, seed=1_000 * len(name) + n), f"{text} {'אבגדהו'[n % 6] * 3}") for n in range(count)]
        write_manifest(tmp_path, clips, name, language=language)
    sources = (
        f"{{kind: manifest, name: {name}, path: {tmp_path}/{name}.jsonl, split: train}}" for name in ("new", "known")
    )
    made = run_recipe(
        tmp_path, tmp_path / "corpus", f"corpus.sources=[{', '.join(sources)}]", "corpus.evaluation=[]",
        "corpus.filters={min_script_share: 0.0, max_repeats: 100}",
    )  # fmt: skip
    commands.prepare.run(made)
    mixes = {"m": {"by": "utterances", "sources": {"new": 0.75, "known": 0.25}, "size": 16}}
    answers = [answer for _, answer, _ in sentences(tiny, tmp_path / "corpus", batch=4, mixes=mixes).values()]
    assert sum(answer.startswith("language Spanish<asr_text>muchas") for answer in answers) == 4
    assert sum(answer.startswith("language Hebrew<asr_text>שלום") for answer in answers) == 12
