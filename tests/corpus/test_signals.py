from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import given
from hypothesis import strategies as st

from caspi import audio, commands
from caspi.corpus.signals import Signals, measure_signals, spectrogram
from caspi.corpus.store import Corpus
from tests.conftest import tone
from tests.support import utterances, voice, write_manifest


def signals(samples: np.ndarray) -> Signals:
    return measure_signals(samples, spectrogram(samples))


SPEECH = voice("buenos dias a todos los presentes en esta sala")


def test_levels() -> None:
    sine = (0.5 * np.sin(2 * np.pi * 440 * np.arange(32_000) / 16_000)).astype(np.float32)
    found = signals(sine)
    assert found.peak_db == pytest.approx(-6.0, abs=0.1)
    assert found.rms_db == pytest.approx(-9.0, abs=0.1)
    assert found.silence == 0
    assert signals(sine + np.float32(0.1)).dc == pytest.approx(0.1, abs=1e-3)


@given(st.floats(-20, -0.5))
def test_gain_changes_only_the_levels(decibel: float) -> None:
    quiet = signals(SPEECH * np.float32(10 ** (decibel / 20)))
    loud = signals(SPEECH)
    assert quiet.rms_db - loud.rms_db == pytest.approx(decibel, abs=0.01)
    assert quiet.clipping == pytest.approx(loud.clipping, abs=1e-4)
    assert quiet.bandwidth_hz == pytest.approx(loud.bandwidth_hz, abs=250)


def test_clipping_is_detected() -> None:
    assert signals(SPEECH).clipping < 0.001
    assert signals(np.clip(SPEECH * 8, -0.9, 0.9)).clipping > 0.05


def test_telephone_bandwidth_is_detected() -> None:
    noise = np.random.default_rng(0).standard_normal(32_000).astype(np.float32) * 0.1
    assert signals(noise).bandwidth_hz == 8_000
    band = audio.resample(soxr.resample(noise, 16_000, 8_000), 8_000)
    assert 3_500 <= signals(band).bandwidth_hz <= 4_250


def test_silence_is_a_share() -> None:
    half = np.concatenate([SPEECH[:16_000], np.zeros(16_000, np.float32)])
    assert signals(half).silence == pytest.approx(0.5 + 0.5 * signals(SPEECH[:16_000]).silence, abs=0.05)


def test_noise_lowers_the_ratio() -> None:
    noise = np.random.default_rng(0).standard_normal(len(SPEECH)).astype(np.float32)
    padded = np.concatenate([np.zeros(8_000, np.float32), SPEECH])
    rng = np.random.default_rng(1).standard_normal(len(padded)).astype(np.float32)
    found = [signals(padded + level * rng).snr_db for level in (0.001, 0.01, 0.1)]
    assert found == sorted(found, reverse=True)
    assert noise.shape == SPEECH.shape


@given(st.integers(0, 40_000), st.floats(0, 1))
def test_any_clip_can_be_measured(length: int, level: float) -> None:
    clip = tone(3.0)[:length] * np.float32(level)
    found = signals(clip)
    assert all(np.isfinite(getattr(found, name)) for name in Signals.__dataclass_fields__)
    assert 0 <= found.silence <= 1
    assert 0 <= found.clipping <= 1


def test_signals_are_columns_and_rejections(tmp_path: Path, recipe_of) -> None:  # type: ignore[no-untyped-def]
    other = voice("no quiero comer nada esta noche", 9)
    telephone = audio.resample(soxr.resample(other, 16_000, 8_000), 8_000)
    clipped = np.clip(voice("la casa grande del pueblo", 3) * 20, -0.9, 0.9)
    pauses = np.concatenate([np.zeros(80_000, np.float32), voice("si", 4)[:2_000]])
    clips = [
        (SPEECH, "בוקר טוב לכולם כאן"), (telephone, "ערב טוב לכולם כאן"),
        (clipped, "הבית הגדול בכפר"), (pauses, "כן כן כן"),
    ]  # fmt: skip
    path = write_manifest(tmp_path / "in", clips)
    source = {"kind": "manifest", "path": path}
    summary = commands.prepare.run(recipe_of([source], filters={"min_bandwidth_hz": 5_000})).summary
    assert summary["rejected"] == {"clipped": 1, "mostly_silence": 1, "narrow_band": 1}
    [kept] = utterances(tmp_path / "corpus").values()
    assert kept.signals is not None
    assert kept.signals.peak_db == pytest.approx(signals(SPEECH).peak_db, abs=0.1)
    assert (kept.sample_rate, kept.channels, kept.dead_channel) == (16_000, 1, False)


def test_samples_above_full_scale_are_attenuated_not_clipped(tmp_path: Path, recipe_of, capsys) -> None:  # type: ignore[no-untyped-def]
    """A float file may have such samples: clipped, a third of them would be at full scale."""
    folder = tmp_path / "in"
    folder.mkdir()
    loud = SPEECH / np.abs(SPEECH).max() * 4
    soundfile.write(folder / "x.wav", loud, 16_000, subtype="FLOAT")
    (folder / "x.txt").write_text("בוקר טוב לכולם כאן", encoding="utf-8")
    commands.prepare.run(recipe_of([{"kind": "folder", "path": folder, "split": "train"}]))
    corpus = Corpus.open(tmp_path / "corpus", "train")
    kept, samples = corpus.utterance(0), corpus.samples(0)
    assert np.corrcoef(samples, loud[: len(samples)])[0, 1] > 0.999
    assert kept.signals is not None
    assert kept.signals.peak_db == pytest.approx(0, abs=0.01)
    assert "1 of 1 kept: audio has samples above full scale" in capsys.readouterr().err


def test_speaking_rate_is_compared_within_the_source(tmp_path: Path, recipe_of) -> None:  # type: ignore[no-untyped-def]
    clips = [(tone(2.0, seed=n), f"{chr(0x5D0 + n % 22)}לום לכם חברים יקרים {n}") for n in range(60)]
    clips.append((tone(2.0, seed=99), "שלום " * 8))
    clips.append((tone(9.0, seed=98), "שלום לכם חבר"))
    path = write_manifest(tmp_path / "in", clips)
    summary = commands.prepare.run(recipe_of([{"kind": "manifest", "path": path}])).summary
    assert summary["rejected"] == {"too_slow": 1}
    stricter = recipe_of([{"kind": "manifest", "path": path}], filters={"rate_deviations": 4})
    assert commands.prepare.run(stricter).summary["rejected"] == {"too_fast": 1, "too_slow": 1}


def test_an_upsampled_file_gives_a_warning(tmp_path: Path, recipe_of, capsys) -> None:  # type: ignore[no-untyped-def]
    telephone = audio.resample(soxr.resample(SPEECH, 16_000, 8_000), 8_000)
    path = write_manifest(tmp_path / "in", [(telephone, "בוקר טוב לכולם כאן")])
    commands.prepare.run(recipe_of([{"kind": "manifest", "path": path}]))
    assert "in: 100 % claim 16 kHz or more but have no content above 4 kHz" in capsys.readouterr().err
