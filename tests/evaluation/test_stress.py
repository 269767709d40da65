"""The stress set degrades audio as each condition states, reproducibly."""

from __future__ import annotations

import numpy as np
import pytest

from caspi.audio import SAMPLE_RATE
from caspi.evaluation.stress import CLEAN, CONDITIONS, apply_condition


def someone_else(draw: np.random.Generator) -> np.ndarray:
    return np.random.default_rng(99).standard_normal(SAMPLE_RATE).astype(np.float32) * 0.1


@pytest.fixture(scope="module")
def clip(speech: np.ndarray) -> np.ndarray:
    return speech[: 3 * SAMPLE_RATE]


def power(samples: np.ndarray) -> float:
    return float(np.mean(samples.astype(np.float64) ** 2))


@pytest.mark.parametrize("condition", sorted(CONDITIONS.keys() - {CLEAN}))
def test_a_condition_changes_the_audio_reproducibly(clip: np.ndarray, condition: str) -> None:
    once = apply_condition(condition, "one", clip, someone_else)
    assert np.array_equal(once, apply_condition(condition, "one", clip, someone_else))
    length = min(len(once), len(clip))
    assert power(once[:length] - clip[:length]) > 1e-4 * power(clip)
    assert np.isfinite(once).all()


def test_clean_is_unchanged_and_noise_differs_by_utterance(clip: np.ndarray) -> None:
    assert np.array_equal(apply_condition(CLEAN, "one", clip, someone_else), clip)
    noisy = "noise (pink), 10 dB"
    assert not np.array_equal(
        apply_condition(noisy, "one", clip, someone_else), apply_condition(noisy, "two", clip, someone_else)
    )


@pytest.mark.parametrize("ratio", [20, 10, 5, 0])
def test_noise_has_the_stated_snr(clip: np.ndarray, ratio: int) -> None:
    noise = apply_condition(f"noise (pink), {ratio} dB", "one", clip, someone_else) - clip
    assert 10 * np.log10(power(clip) / power(noise)) == pytest.approx(ratio, abs=1.5)


def test_speed_changes_the_length_and_telephone_removes_content_above_4_khz(clip: np.ndarray) -> None:
    for factor in (0.85, 1.25):
        assert len(apply_condition(f"speed, {factor} times", "one", clip, someone_else)) == pytest.approx(
            len(clip) / factor, abs=2
        )
    spectrum = np.abs(np.fft.rfft(apply_condition("telephone, 8 kHz mu-law", "one", clip, someone_else))) ** 2
    assert spectrum[len(spectrum) // 2 + 500 :].sum() < 0.01 * spectrum.sum()


def test_a_tenth_is_clipped_and_the_other_speaker_is_10_db_below(clip: np.ndarray) -> None:
    clipped = apply_condition("clipping, a tenth of the samples", "one", clip, someone_else)
    assert (np.abs(clipped) >= np.abs(clipped).max() * 0.999).mean() == pytest.approx(0.1, abs=0.03)
    beside = apply_condition("another speaker, 10 dB below", "one", clip, someone_else) - clip
    sounding = beside[np.abs(beside) > 0]
    assert 10 * np.log10(power(clip) / power(sounding)) == pytest.approx(10, abs=4)
