"""Draws for a whole epoch: different in every epoch, reproducible, and independent of other rows."""

from __future__ import annotations

import numpy as np

from caspi.augmentation.config import Augmentation, Silence
from caspi.training.data.epoch_lengths import EpochLengths, bernoulli_mask

AUGMENT = Augmentation(speed=(0.9, 1.0, 1.1), silence=Silence(seconds=(0.1, 0.5), probability=0.5))


def drawn(count: int = 1_000, seed: int = 3, epoch: int = 2) -> list[np.ndarray]:
    lengths = EpochLengths.of(np.full(count, 2.0)).augmented(AUGMENT, seed, epoch)
    return [lengths.speed, lengths.before, lengths.after, bernoulli_mask(count, 0.5, seed, epoch, "timestamps")]


def test_draws_differ_by_epoch_and_seed_and_are_reproducible() -> None:
    for one, again, epoch, seed in zip(drawn(), drawn(), drawn(epoch=3), drawn(seed=4), strict=True):
        assert np.array_equal(one, again)
        assert 0.2 < np.mean(one != epoch) < 0.8
        assert 0.2 < np.mean(one != seed) < 0.8


def test_a_rows_draws_do_not_depend_on_later_rows() -> None:
    assert all(np.array_equal(few, many[:100]) for few, many in zip(drawn(100), drawn(), strict=True))


def test_draws_are_independent_of_each_other() -> None:
    speed, before, after, timed = drawn(10_000)
    padded = before > 0
    assert np.array_equal(padded, after > 0)
    assert abs(np.corrcoef(before[padded], after[padded])[0, 1]) < 0.05
    assert abs(np.corrcoef(speed, padded)[0, 1]) < 0.05
    assert abs(np.corrcoef(timed, padded)[0, 1]) < 0.05
    assert [round(float(np.mean(speed == factor)), 1) for factor in AUGMENT.speed] == [0.3, 0.3, 0.3]
    assert 0.47 < padded.mean() < 0.53
    assert before[padded].min() >= 0.1
    assert before[padded].max() <= 0.5
