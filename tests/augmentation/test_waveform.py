"""The effect of each augmentation on a waveform, measured on the signal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from caspi.augmentation.config import Augmentation, Clipping, Codec, Noise, Reverberation, SecondSpeaker, Silence
from caspi.augmentation.waveform import WaveformAugmenter, coloured
from caspi.errors import UsageError
from caspi.randomness import generator
from caspi.training.data.epoch_lengths import EpochLengths

RATE = 16_000


def draw(name: str) -> np.random.Generator:
    return generator(0, 0, 0, name)


def speechlike(seconds: float = 2.0, seed: int = 1) -> np.ndarray:
    """Bursts of a gliding tone with some noise."""
    time = np.arange(int(seconds * RATE)) / RATE
    sound = 0.2 * np.sin(2 * np.pi * (200 + 300 * time) * time) * (np.sin(2 * np.pi * 3 * time) > 0)
    return (sound + np.random.default_rng(seed).standard_normal(len(time)) * 0.002).astype(np.float32)


OTHER = speechlike(1.0, seed=2)[::-1].copy()


def augmented(config: Augmentation, samples: np.ndarray | None = None, row: int = 0) -> np.ndarray:
    samples = speechlike() if samples is None else samples
    lengths = EpochLengths.of(np.full(row + 1, len(samples) / RATE)).augmented(config, 0, 0)
    found = WaveformAugmenter(config)(
        samples, lengths.tempo_and_padding(row), lambda name: generator(0, 0, row, name), lambda _: OTHER
    )
    assert len(found) / RATE == pytest.approx(lengths.seconds[row], abs=3 / RATE), "as long as planned"
    return found


def decibels(ratio: float) -> float:
    return float(10 * np.log10(ratio))


def delay(one: np.ndarray, other: np.ndarray) -> int:
    """The number of samples by which `other` is delayed."""
    size = 2 * max(len(one), len(other))
    found = np.fft.irfft(np.fft.rfft(one, size).conj() * np.fft.rfft(other, size), size)
    place = int(np.argmax(found))
    return place if place < size // 2 else place - size


EVERYTHING = Augmentation(
    speed=(0.9, 1.1), silence=Silence(probability=1), second_speaker=SecondSpeaker(probability=1),
    reverberation=Reverberation(probability=1), noise=Noise(snr_db=(5, 30), spectral_slope=(0, 2)), gain_db=(-12, 3),
    clipping=Clipping(probability=1), codec=Codec(probability=1),
)  # fmt: skip


@settings(max_examples=40)
@given(st.integers(0, 2**12), st.floats(0.05, 3.0))
def test_any_input_gives_finite_output_of_the_planned_length(row: int, seconds: float) -> None:
    samples = speechlike(seconds)
    before = samples.copy()
    found = augmented(EVERYTHING, samples, row)
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    assert len(samples) / 1.2 < len(found) < len(samples) / 0.85 + RATE
    assert np.array_equal(samples, before), "the corpus's own samples do not change"
    assert np.array_equal(found, augmented(EVERYTHING, samples, row))


@pytest.mark.parametrize("name", [name for name in Augmentation.model_fields if name not in ("speed", "spec_augment")])
def test_silent_input_stays_finite(name: str) -> None:
    config = Augmentation.model_validate({name: getattr(EVERYTHING, name)})
    assert np.isfinite(augmented(config, np.zeros(RATE, np.float32))).all()


def test_an_additional_effect_does_not_change_the_others() -> None:
    noisy = augmented(Augmentation(noise=Noise(snr_db=(0, 30))))
    louder = augmented(Augmentation(noise=Noise(snr_db=(0, 30)), gain_db=(3, 9)))
    assert np.allclose(louder / noisy, louder[0] / noisy[0], rtol=1e-4)


def test_effects_are_applied_with_their_probability() -> None:
    config = Augmentation(silence=Silence(seconds=(1, 1), probability=0.25))
    longer = sum(len(augmented(config, row=row)) > 2 * RATE for row in range(400))
    assert 70 < longer < 130


def test_speed_is_one_of_the_factors() -> None:
    lengths = {len(augmented(Augmentation(speed=(0.8, 1.0, 1.25)), row=row)) for row in range(40)}
    assert lengths == {2 * RATE * 5 // 4, 2 * RATE, 2 * RATE * 4 // 5}


def test_gain_is_in_decibels() -> None:
    assert np.allclose(augmented(Augmentation(gain_db=(6.0206, 6.0206))), speechlike() * 2, rtol=1e-3)


@pytest.mark.parametrize("spectral_slope", [0.0, 1.0, 2.0])
def test_noise_has_its_ratio_and_spectral_slope(spectral_slope: float) -> None:
    samples = speechlike()
    found = (
        augmented(Augmentation(noise=Noise(snr_db=(10, 10), spectral_slope=(spectral_slope, spectral_slope)))) - samples
    )
    assert decibels(np.mean(samples**2) / np.mean(found**2)) == pytest.approx(10, abs=0.1)
    power = np.abs(np.fft.rfft(coloured(RATE * 30, spectral_slope, draw("noise")))) ** 2
    low, high = power[30 * 100 : 30 * 200].mean(), power[30 * 3_200 : 30 * 6_400].mean()
    assert decibels(low / high) == pytest.approx(spectral_slope * 10 * np.log10(32), abs=0.5)


def test_noise_comes_from_a_folder_at_any_rate_and_length(tmp_path: Path) -> None:
    time = np.arange(4_000) / 8_000
    stereo = np.stack([np.sin(2 * np.pi * 1_000 * time)] * 2, axis=1)
    soundfile.write(tmp_path / "hum.wav", stereo, 8_000)  # half a second
    samples = speechlike()
    found = augmented(Augmentation(noise=Noise(snr_db=(3, 3), folder=tmp_path))) - samples
    assert decibels(np.mean(samples**2) / np.mean(found**2)) == pytest.approx(3, abs=0.1)
    assert abs(int(np.argmax(np.abs(np.fft.rfft(found)))) / 2 - 1_000) < 3  # hertz, of two seconds


def test_a_room_decays_and_adds_no_delay() -> None:
    click = np.zeros(RATE, np.float32)
    click[1_000] = 0.5
    found = augmented(
        Augmentation(reverberation=Reverberation(probability=1, seconds=(0.4, 0.4), below_db=(3, 3))), click
    )
    assert len(found) == RATE
    assert int(np.argmax(np.abs(found))) == 1_000
    energy = found**2
    assert energy[:1_000].sum() < 1e-9
    after = [energy[1_001 + start : 1_001 + start + 800].sum() for start in (0, 3_200)]
    assert decibels(after[0] / after[1]) == pytest.approx(60 * 0.2 / 0.4, abs=4)  # 60 dB in 0.4 s
    assert decibels(energy[1_000] / energy[1_001:].sum()) == pytest.approx(3, abs=0.3)
    assert np.mean(energy) == pytest.approx(np.mean(click**2), rel=1e-3)


def test_a_measured_room_is_aligned_by_its_direct_sound(tmp_path: Path) -> None:
    response = np.zeros(4_000, np.float32)
    response[[777, 1_500]] = 0.9, 0.3
    soundfile.write(tmp_path / "room.wav", response, RATE)
    config = Augmentation(reverberation=Reverberation(folder=tmp_path, probability=1))
    assert delay(speechlike(), augmented(config)) == 0


@pytest.mark.parametrize("kind", ["mp3", "opus", "telephone"])
def test_codecs_are_lossy_and_add_no_delay(kind: str) -> None:
    for row in range(4):
        samples = speechlike(2.0 + row * 0.111)
        found = augmented(Augmentation(codec=Codec.model_validate({"kinds": [kind], "probability": 1})), samples, row)
        assert len(found) == len(samples)
        assert delay(samples, found) == 0
        assert decibels(np.mean(samples**2) / np.mean((samples - found) ** 2)) > 3
        assert not np.array_equal(samples, found)


def test_a_telephone_removes_high_and_low_frequencies() -> None:
    noise = np.random.default_rng(0).standard_normal(2 * RATE).astype(np.float32) * 0.1
    power = np.abs(np.fft.rfft(augmented(Augmentation(codec=Codec(kinds=("telephone",), probability=1)), noise))) ** 2
    speech = power[2 * 500 : 2 * 3_000].mean()
    assert decibels(speech / power[2 * 4_500 :].mean()) > 40
    assert decibels(speech / power[2 * 10 : 2 * 150].mean()) > 20
    assert decibels(power[2 * 400 : 2 * 1_000].mean() / speech) == pytest.approx(0, abs=1)
    assert decibels(speech / power[2 * 3_500 : 2 * 3_600].mean()) > 2.5, "narrower than 8 kHz sampling alone"


def test_codecs_handle_samples_above_full_scale() -> None:
    loud = speechlike() * 20
    for kind in ("mp3", "opus", "telephone"):
        found = augmented(Augmentation(codec=Codec.model_validate({"kinds": [kind], "probability": 1})), loud)
        assert np.sqrt(np.mean(found**2)) == pytest.approx(np.sqrt(np.mean(loud**2)), rel=0.2)


def test_a_second_speaker_is_quieter_than_the_first() -> None:
    samples = speechlike()
    added = augmented(Augmentation(second_speaker=SecondSpeaker(below_db=(12, 12), probability=1))) - samples
    where = np.flatnonzero(np.abs(added) > 1e-6)
    assert 0 < where[0] < where[-1] < len(samples)
    assert decibels(np.mean(samples**2) / np.mean(added[where[0] : where[-1] + 1] ** 2)) == pytest.approx(12, abs=0.6)


def test_clipping_flattens_the_loudest_share() -> None:
    samples = speechlike()
    found = augmented(Augmentation(clipping=Clipping(share=(0.1, 0.1), probability=1)))
    flat = np.abs(found) >= np.abs(found).max() * (1 - 1e-6)
    assert 0.09 < flat.mean() < 0.11
    assert np.array_equal(found[~flat], samples[~flat])


@pytest.mark.parametrize("content", [b"RIFF, it says", b""])
def test_the_error_names_an_undecodable_file_before_training(tmp_path: Path, content: bytes) -> None:
    soundfile.write(tmp_path / "good.wav", np.ones(100), 16_000)
    (tmp_path / "rain.wav").write_bytes(content)
    config = Augmentation.model_validate({"noise": {"snr_db": [0, 1], "folder": str(tmp_path)}})
    with pytest.raises(UsageError, match=r"rain.wav cannot be decoded \(.+\): remove it from its folder"):
        WaveformAugmenter(config)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"noise": {"snr_db": [0, 1], "folder": "EMPTY"}}, "train.augment.noise.folder: EMPTY holds no .aif"),
        ({"reverberation": {"folder": "EMPTY/missing"}}, "train.augment.reverberation.folder: EMPTY/missing holds no"),
    ],
)
def test_a_folder_without_audio_is_an_error(tmp_path: Path, config: dict[str, Any], message: str) -> None:
    for effect in config.values():
        effect["folder"] = effect["folder"].replace("EMPTY", str(tmp_path))
    with pytest.raises(UsageError, match=message.replace("EMPTY", str(tmp_path))):
        WaveformAugmenter(Augmentation.model_validate(config))
