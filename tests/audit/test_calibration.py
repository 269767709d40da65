"""The score of an audit, its threshold, and the share of faulty transcripts that follows from it."""

from __future__ import annotations

import numpy as np
import pytest

from caspi.audit.audit import AuditConfig, decision
from caspi.audit.calibration import FALSE_ALARMS, Sampled, calibrated, estimated, scored
from caspi.audit.measurements import MadeFault


def signals(
    seed: int, faulty: float, able: float, size: int = 300
) -> tuple[list[dict[str, float]], list[MadeFault], np.ndarray]:
    """Two useful signals and a useless one; a fault raises the first or the second by `able` standard deviations."""
    draw = np.random.default_rng(seed)
    is_faulty = draw.random(size) < faulty

    def one(kind: str) -> dict[str, float]:
        values = {"loss": draw.normal(), "gap": draw.gamma(2.0), "noise": draw.normal()}
        if kind:
            values["loss" if kind == "another transcript" else "gap"] += able * (
                1.0 if kind == "another transcript" else 1.4
            )
        return values

    own = [one(draw.choice(["another transcript", "cut"]) if bad else "") for bad in is_faulty]
    made = [MadeFault(kind, n, one(kind)) for n in range(size) for kind in ("another transcript", "cut")]
    return own, made, is_faulty


@pytest.mark.parametrize(("faulty", "able"), [(0.0, 7.0), (0.05, 7.0), (0.2, 7.0), (0.4, 7.0), (0.2, 4.0)])
def test_the_share_of_faulty_transcripts_is_found(faulty: float, able: float) -> None:
    found = []
    for seed in range(6):
        own, made, is_faulty = signals(seed, faulty, able)
        calibration = calibrated(scored(own, made), Sampled.alike(len(own)))
        assert calibration.faulty is not None
        assert calibration.faulty.low <= calibration.faulty.share <= calibration.faulty.high
        found.append((calibration.faulty, is_faulty.mean()))
    assert np.mean([estimate.share for estimate, _ in found]) == pytest.approx(faulty, abs=0.035)
    if able == 7.0:  # otherwise some right transcripts look faulty, and the share is an upper limit
        assert sum(one.low - 0.01 <= true <= one.high + 0.01 for one, true in found) >= 5


@pytest.mark.parametrize("faulty", [0.0, 0.2])
def test_one_of_twenty_right_transcripts_is_flagged(faulty: float) -> None:
    alarms, recalls = [], []
    for seed in range(6):
        own, made, is_faulty = signals(seed, faulty, 4.0)
        scores = scored(own, made)
        calibration = calibrated(scores, Sampled.alike(len(own)))
        flagged = scores.own >= calibration.threshold
        alarms.append(flagged[~is_faulty].mean())
        recalls += calibration.recall.values()
    assert np.mean(alarms) == pytest.approx(FALSE_ALARMS, abs=0.02)
    assert np.mean(recalls) > 0.8


def test_models_that_hear_nothing_judge_nothing() -> None:
    """Trap: a fallback that invents scores when the aligner fails is worse than stopping."""
    for faulty in (0.0, 0.5):
        own, made, _ = signals(0, faulty, able=0.0)
        found = calibrated(scored(own, made), Sampled.alike(len(own)))
        assert (found.seen, found.faulty) == ((), None)
        decided, reason = decision(found, AuditConfig())
        assert decided == "CAUTION"
        assert "nothing is judged" in reason


def test_models_that_hardly_know_the_speech_stop_nothing() -> None:
    """To them most right transcripts look faulty; a corpus with as many faults looks the same only at a glance."""
    draw = np.random.default_rng(0)
    own = [{"loss": draw.normal()} for _ in range(300)]
    made = [MadeFault("another transcript", n, {"loss": draw.normal(4.0 if n % 3 else 0.0)}) for n in range(300)]
    found = calibrated(scored(own, made), Sampled.alike(300))
    assert found.faulty is not None
    assert not found.knows_this_speech
    decided, reason = decision(found, AuditConfig(proceed_below=0.0, stop_above=0.0))
    assert decided == "CAUTION"
    assert "do not know such speech" in reason
    for faulty in (0.0, 0.2, 0.5):
        own, made, _ = signals(0, faulty, 7.0)
        assert calibrated(scored(own, made), Sampled.alike(300)).knows_this_speech


def test_limits_in_the_wrong_order_are_refused() -> None:
    with pytest.raises(ValueError, match=r"proceed_below 0\.5 is above stop_above 0\.1"):
        AuditConfig(proceed_below=0.5, stop_above=0.1)


def test_a_kind_that_is_not_heard_is_named_and_left_out() -> None:
    own, made, _ = signals(0, 0.1, 6.0)
    draw = np.random.default_rng(1)
    made += [
        MadeFault("late", n, {"loss": draw.normal(), "gap": draw.gamma(2.0), "noise": draw.normal()})
        for n in range(300)
    ]
    found = calibrated(scored(own, made), Sampled.alike(300))
    assert set(found.seen) == {"another transcript", "cut"}
    assert found.recall["late"] < 0.2
    assert "not seen: late" in decision(found, AuditConfig())[1]


def test_signals_that_are_missing_or_always_the_same_do_no_harm() -> None:
    own, made, _ = signals(0, 0.1, 6.0)
    for values in [*own[::3], *(one.signals for one in made[::5])]:
        del values["noise"]
    for values in [*own, *(one.signals for one in made)]:
        values["constant"] = 1.0
    assert calibrated(scored(own, made), Sampled.alike(300)).faulty is not None


def test_nothing_found_in_few_transcripts_is_no_proof() -> None:
    made = [np.full(100, 5.0)]
    few, many = (estimated(np.zeros(size), Sampled.alike(size), made) for size in (20, 1000))
    assert (few.share, few.high) == (0.0, pytest.approx(0.15))
    assert many.high == pytest.approx(0.003)


@pytest.mark.parametrize(
    ("faulty", "allowed"),
    [(0.0, {"PROCEED"}), (0.05, {"PROCEED", "CAUTION"}), (0.12, {"CAUTION"}), (0.25, {"STOP"}), (0.4, {"STOP"})],
)
def test_decisions(faulty: float, allowed: set[str]) -> None:
    decisions = []
    for seed in range(5):
        own, made, _ = signals(seed, faulty, 7.0, size=600)
        decisions.append(decision(calibrated(scored(own, made), Sampled.alike(len(own))), AuditConfig())[0])
    assert sum(one in allowed for one in decisions) >= 4


def test_faults_of_few_recordings_are_less_certain_than_those_of_many() -> None:
    draw = np.random.default_rng(0)
    own = np.where(np.arange(400) < 60, 5.0, draw.normal(size=400))
    made = [np.full(200, 5.0)]
    alone = estimated(own, Sampled.alike(400), made)
    together = estimated(own, Sampled(np.ones(400), np.arange(400) // 20), made)  # the faulty ones: three recordings
    assert alone.share == together.share == pytest.approx(0.15)
    assert together.high - together.low > 2 * (alone.high - alone.low)


def test_a_faulty_transcript_looks_like_its_own_kind_of_fault() -> None:
    own, made, is_faulty = signals(0, 0.2, 7.0)
    likely = np.array(scored(own, made).looks_like)
    gaps = np.array([one["gap"] for one in own])
    losses = np.array([one["loss"] for one in own])
    assert (likely[is_faulty & (losses > 4)] == "another transcript").mean() > 0.95
    assert (likely[is_faulty & (gaps > 8)] == "cut").mean() > 0.95
