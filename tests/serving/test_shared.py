"""Many callers of one model: short requests do not wait for long ones, and an error ends only its own request."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from caspi.errors import CaspiError, UsageError
from caspi.inference.engine.engine import Engine
from caspi.inference.transcriber import Recording, Transcriber
from caspi.model.loading import LoadedModel
from caspi.serving.shared import SharedTranscriber


@pytest.fixture
def shared(tiny: LoadedModel) -> Iterator[SharedTranscriber]:
    made = SharedTranscriber(Transcriber(tiny))
    yield made
    made.close()


def asked(samples: np.ndarray, context: str = "") -> Recording:
    return Recording(samples, "Spanish", context)


def test_200_callers_at_once_get_their_own_text(
    shared: SharedTranscriber, clips: list[np.ndarray], tiny: LoadedModel
) -> None:
    expected = [one.text for one in Transcriber(tiny).transcribe([asked(clip) for clip in clips])]
    with ThreadPoolExecutor(200) as pool:
        found = list(pool.map(lambda n: shared.submit(asked(clips[n % 4])).result(timeout=120).text, range(200)))
    assert found == [expected[number % 4] for number in range(200)]


def test_a_short_clip_does_not_wait_for_a_long_recording(shared: SharedTranscriber, clips: list[np.ndarray]) -> None:
    long = shared.submit(asked(np.tile(np.concatenate(clips), 60)))
    short = shared.submit(asked(clips[0]))
    assert short.result(timeout=60).text
    assert not long.done()
    long.cancel()


def test_a_cancelled_recording_leaves_the_engine(shared: SharedTranscriber, clips: list[np.ndarray]) -> None:
    future = shared.submit(asked(np.tile(np.concatenate(clips), 60)))
    time.sleep(0.3)
    assert future.cancel()
    assert shared.submit(asked(clips[1])).result(timeout=60).text
    assert not shared._transcriber._opened


def test_an_error_ends_one_recording_only(shared: SharedTranscriber, clips: list[np.ndarray]) -> None:
    good, bad, other = [
        shared.submit(asked(clip, context)) for clip, context in zip(clips, ("", "שלום " * 6_000, ""), strict=False)
    ]
    with pytest.raises(UsageError, match="shorten the context"):
        bad.result(timeout=60)
    assert good.result(timeout=60).text
    assert other.result(timeout=60).text


def test_a_failure_of_the_engine_is_not_the_end_of_the_service(
    shared: SharedTranscriber, clips: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, failed = Engine._encoded, threading.Event()

    def fails_once(self: Engine, batch: Any) -> Any:
        if not failed.is_set():
            failed.set()
            raise RuntimeError("device lost")
        return real(self, batch)

    monkeypatch.setattr(Engine, "_encoded", fails_once)
    with pytest.raises(CaspiError, match="the engine failed: RuntimeError"):
        shared.submit(asked(clips[0])).result(timeout=60)
    assert shared.submit(asked(clips[0])).result(timeout=60).text


def test_closing_ends_what_is_not_done(tiny: LoadedModel, clips: list[np.ndarray]) -> None:
    shared = SharedTranscriber(Transcriber(tiny))
    future = shared.submit(asked(np.tile(np.concatenate(clips), 60)))
    time.sleep(0.2)
    shared.close()
    with pytest.raises((CaspiError, CancelledError)):
        future.result(timeout=1)
