from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from caspi import recipe
from caspi.augmentation.config import Augmentation, Codec, Noise, Reverberation, SecondSpeaker, Silence, SpecAugment
from caspi.augmentation.spec_augment import draw_masks
from caspi.corpus.store import Corpus
from caspi.model.batch import FeatureMasks
from caspi.model.config import MEL_BINS, ModelConfig
from caspi.model.loading import LoadedModel
from caspi.randomness import generator
from caspi.training.config import TrainConfig
from caspi.training.data.dataset import TrainingSet
from caspi.training.data.stage_plan import plan_stage
from caspi.training.data.steps import PlannedSteps
from caspi.training.validation import measure_checkpoint


@given(st.integers(0, 1_000), st.floats(0.6, 20.0))
def test_spec_augment_masks_bins_and_frames_within_bounds(seed: int, seconds: float) -> None:
    """Trap: with the axes swapped, half of the mel bins were zeroed."""
    spec = SpecAugment(frequency_masks=2, frequency_width=20, time_masks=2, time_width=30, time_share=0.2)
    masks = draw_masks([int(seconds * 16_000)], spec, [generator(0, 0, seed)])
    frames = int(seconds * 100)
    features = masks.apply(torch.ones(1, MEL_BINS, frames))[0]
    blank_bins = (features == 0).all(dim=1).sum()
    blank_frames = (features == 0).all(dim=0).sum()
    assert blank_bins <= 40
    assert blank_frames <= frames * 0.2 + 1
    assert (features[(features != 0).any(dim=1)][:, (features != 0).any(dim=0)] == 1).all()


def test_masks_apply_to_the_right_axis() -> None:
    masks = FeatureMasks(frequency=torch.tensor([[[3, 2]]]), time=torch.tensor([[[10, 5]]]))
    features = masks.apply(torch.ones(1, MEL_BINS, 100))[0]
    assert torch.nonzero((features == 0).all(dim=1)).flatten().tolist() == [3, 4]
    assert torch.nonzero((features == 0).all(dim=0)).flatten().tolist() == [10, 11, 12, 13, 14]


def steps(tiny: LoadedModel, corpus: Corpus, augment: Augmentation, batch: int, budget: float = 60) -> PlannedSteps:
    """The steps of two epochs."""
    config = TrainConfig.model_validate({
        "path": "x", "effective_batch": batch, "max_batch_seconds": budget, "max_batch_tokens": 1_000_000,
        "augment": augment, "stages": [{"name": "s", "groups": {"projector": 1e-3}, "epochs": 2}],
    })  # fmt: skip
    data, [stage] = TrainingSet.of(corpus, tiny.prompt, 15.0), config.stages
    plans, count = plan_stage(data, config, stage, 1, 5)
    return PlannedSteps(data, plans, count, 0, tiny.prompt, config, stage, 5)


def test_the_budget_is_kept_with_speed_and_silence(tiny: LoadedModel, small_corpus: Path) -> None:
    augment = Augmentation(speed=(0.6, 1.4), silence=Silence(seconds=(0.1, 1.0), probability=0.5))
    planned = steps(tiny, Corpus.open(small_corpus, "train"), augment, 24, budget=12)
    changed = []
    for step in (planned[index] for index in range(len(planned))):
        assert step.seconds == pytest.approx(sum(planned._data.seconds[row] for b in step.batches for row in b.rows))
        for batch in step.batches:
            assert batch.seconds <= 12 + 1e-3 or len(batch.rows) == 1
            assert batch.seconds == pytest.approx(planned.size(batch).seconds, abs=0.01 * len(batch.rows))
            assert batch.sequences.bounds[-1] <= planned.size(batch).tokens
            changed.append(batch.seconds / sum(planned._data.seconds[row] for row in batch.rows))
    assert min(changed) < 0.95
    assert max(changed) > 1.4


def test_augmentation_depends_on_utterance_and_epoch_not_on_the_batch(tiny: LoadedModel, small_corpus) -> None:  # type: ignore[no-untyped-def]
    """A resumed run, or another batch size, must repeat it exactly."""
    corpus = Corpus.open(small_corpus, "train")
    augment = Augmentation(
        spec_augment=SpecAugment(), gain_db=(-6, 6), noise=Noise(snr_db=(10, 30)), codec=Codec(),
        reverberation=Reverberation(), second_speaker=SecondSpeaker(probability=0.5), speed=(0.9, 1.0, 1.1),
    )  # fmt: skip
    found = []
    for batch in (4, 8):
        planned = steps(tiny, corpus, augment, batch)
        by_row = {}
        for index in range(48 // batch):
            for micro in planned[index].batches:
                for place, row in enumerate(micro.rows):
                    assert micro.masks is not None
                    length = int(micro.audio.frames[place]) * 160
                    by_row[row] = (
                        micro.audio.samples[place, 200 : 200 + length].tolist(),
                        micro.masks.time[place].tolist(),
                    )
        found.append(by_row)
    assert found[0].keys() == found[1].keys()
    assert all(found[0][row] == found[1][row] for row in found[0])


def test_epochs_are_augmented_differently(tiny: LoadedModel, small_corpus) -> None:  # type: ignore[no-untyped-def]
    planned = steps(tiny, Corpus.open(small_corpus, "train"), Augmentation(gain_db=(-20, 20)), 48)
    first, second = planned[0].batches[0], planned[1].batches[0]
    places = {row: place for place, row in enumerate(second.rows)}
    row = first.rows[0]
    assert not torch.equal(first.audio.samples[0, :8_000], second.audio.samples[places[row], :8_000])


def test_without_augmentation_samples_equal_the_corpus(tiny: LoadedModel, small_corpus) -> None:  # type: ignore[no-untyped-def]
    corpus = Corpus.open(small_corpus, "train")
    micro = steps(tiny, corpus, Augmentation(), 8)[0].batches[0]
    assert micro.masks is None
    clip = corpus.samples(micro.rows[0])
    assert np.array_equal(micro.audio.samples[0, 200 : 200 + len(clip)].numpy(), clip)


def test_evaluation_uses_no_augmentation(small_run: Path, small_corpus: Path) -> None:
    """A recipe with extreme augmentation gives the same evaluation as one without."""
    model = json.loads((small_run / "report.json").read_text())["final"]
    config = recipe.load(small_run / "recipe.yaml").require_train()
    extreme = Augmentation.model_validate({"noise": {"snr_db": [-20, -10]}, "gain_db": [-40, -30], "speed": [0.5]})
    found = [
        measure_checkpoint(
            ModelConfig(start=model), small_corpus, config.model_copy(update={"augment": augment}), "Hebrew"
        )
        for augment in (Augmentation(), extreme)
    ]
    assert found[0] == found[1]
