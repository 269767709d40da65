"""The WebSocket for live speech, with a real client at the speed of speech."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import websockets

from caspi.audio import SAMPLE_RATE
from caspi.inference.engine.requests import Hypothesis
from caspi.inference.engine.words import RecognisedWord
from caspi.inference.long_audio import Window
from caspi.inference.speech_detection import Everything
from caspi.inference.transcriber import TranscriptionOptions
from caspi.inference.transcripts import HeardWindow, TimedText, Transcript
from caspi.model.loading import LoadedModel
from caspi.serving.access import Keys, new_key
from caspi.serving.app import application
from caspi.serving.live import _Utterance
from caspi.serving.shared import Job
from tests.conftest import ROOT
from tests.serving.conftest import Running, running, serving
from tests.support import voice

Timed = list[tuple[float, dict[str, Any]]]  # seconds since the first sample was sent, message
STEP = 0.1


def pcm(samples: np.ndarray) -> bytes:
    return (samples * 32_767).astype("<i2").tobytes()


async def _talk(url: str, samples: np.ndarray, start: dict[str, Any], speed: float) -> Timed:
    rate = start.get("sample_rate", SAMPLE_RATE)
    found: Timed = []
    async with websockets.connect(url.replace("http", "ws") + "/v1/live") as socket:
        await socket.send(json.dumps({"type": "start", **start}))
        began = time.monotonic()

        async def send() -> None:
            for number, first in enumerate(range(0, len(samples), int(rate * STEP))):
                await asyncio.sleep(max(0.0, began + number * STEP / speed - time.monotonic()))
                await socket.send(pcm(samples[first : first + int(rate * STEP)]))
            await socket.send(json.dumps({"type": "stop"}))

        sending = asyncio.create_task(send())
        async for message in socket:
            found.append((time.monotonic() - began, json.loads(message)))
        await asyncio.gather(sending, return_exceptions=True)
    return found


def talk(server: Running, samples: np.ndarray, speed: float = 1.0, **start: Any) -> Timed:
    return asyncio.run(_talk(server.url, samples, start, speed))


def messages(found: Timed, kind: str) -> list[dict[str, Any]]:
    return [message for _, message in found if message["type"] == kind]


SENTENCES = ["la casa grande y el perro come pan", "muchas gracias por una ciudad antigua"]


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    """Two sentences with pauses around them."""
    pause = (1e-3 * np.random.default_rng(0).standard_normal(int(1.2 * SAMPLE_RATE))).astype(np.float32)
    return np.concatenate(
        [part for number, text in enumerate(SENTENCES) for part in (pause, voice(text, number))] + [pause]
    )


@pytest.fixture(scope="module")
def heard(served: Running, speech: np.ndarray) -> Timed:
    """What is answered at the speed of speech."""
    return talk(served, speech, language="es")


def test_text_comes_within_a_second_and_ends_at_pauses(heard: Timed, speech: np.ndarray) -> None:
    assert [heard[0][1]["type"], heard[-1][1]["type"]] == ["ready", "done"]
    assert heard[-1][1]["seconds"] == pytest.approx(len(speech) / SAMPLE_RATE)
    finals = messages(heard, "final")
    assert [final["utterance"] for final in finals] == [0, 1]
    starts = [1.2, 2.4 + len(voice(SENTENCES[0], 0)) / SAMPLE_RATE]
    for final, start in zip(finals, starts, strict=True):
        assert start - 0.5 < final["start"] < start + 0.1
        shown = [
            at for at, message in heard if message["type"] == "partial" and message["utterance"] == final["utterance"]
        ]
        assert len(shown) >= 2
        assert shown[0] - start < 1.5  # 0.4 s of speech, then a second at most
    done = [at for at, message in heard if message["type"] == "final"]
    assert done[0] < starts[1] + 0.5, "the first sentence is final before the second is over"


def test_what_was_stable_stays_as_it_was(heard: Timed) -> None:
    stable = {0: "", 1: ""}
    for message in messages(heard, "partial"):
        number = message["utterance"]
        assert message["stable"].startswith(stable[number])
        assert message["text"].startswith(message["stable"])
        stable[number] = message["stable"]
    for final in messages(heard, "final"):
        assert final["text"].startswith(stable[final["utterance"]])
        assert [word["word"] for word in final["words"]] == final["text"].split()
        assert all(0 < word["probability"] <= 1 for word in final["words"])
    assert any(stable.values())


def test_any_sample_rate_and_faster_than_it_is_spoken(served: Running, speech: np.ndarray) -> None:
    found = talk(served, np.repeat(speech, 3), speed=50.0, language="es", sample_rate=48_000)
    assert [final["utterance"] for final in messages(found, "final")] == [0, 1]
    assert messages(found, "done")[0]["seconds"] == pytest.approx(len(speech) / SAMPLE_RATE, abs=0.01)


def test_silence_has_no_text(served: Running) -> None:
    found = talk(served, np.zeros(5 * SAMPLE_RATE, np.float32), speed=50.0, language="es")
    assert [message["type"] for _, message in found] == ["ready", "done"]


def test_many_speak_at_once(served: Running, speech: np.ndarray) -> None:
    async def all_of_them() -> Sequence[Timed]:
        return await asyncio.gather(*(_talk(served.url, speech, {"language": "es"}, 4.0) for _ in range(20)))

    assert all(len(messages(found, "final")) == 2 for found in asyncio.run(all_of_them()))


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        (["hello"], "is not JSON"),
        ([b"12"], "is not JSON"),
        (['{"type": "stop"}'], "the first message is"),
        (['{"type": "start", "language": "Klingon"}'], "language 'Klingon' is not known"),
        (['{"type": "start", "sample_rate": 3}'], "sample_rate: 3 is not a number from"),
        (['{"type": "start"}', b"123"], "an even number of bytes"),
        (['{"type": "start"}', '{"type": "dance"}'], 'then {"type": "stop"}'),
    ],
)
def test_what_the_protocol_does_not_have_is_named(served: Running, sent: list[str | bytes], message: str) -> None:
    async def run() -> dict[str, Any]:
        async with websockets.connect(served.url.replace("http", "ws") + "/v1/live") as socket:
            for one in sent:
                await socket.send(one)
            last: dict[str, Any] = {}
            async for answer in socket:
                last = json.loads(answer)
            return last

    assert message in asyncio.run(run())["message"]


def test_a_client_that_leaves_ends_its_work(served: Running, speech: np.ndarray) -> None:
    async def leave() -> None:
        async with websockets.connect(served.url.replace("http", "ws") + "/v1/live") as socket:
            await socket.send('{"type": "start"}')
            await socket.send(pcm(speech[: SAMPLE_RATE * 3]))
            socket.transport.abort()

    asyncio.run(leave())
    deadline = time.monotonic() + 20
    while served.transcriber.pending and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not served.transcriber.pending
    assert len(messages(talk(served, speech, speed=20.0, language="es"), "final")) == 2


def test_a_browser_gives_its_key_in_the_address(tiny: LoadedModel, speech: np.ndarray) -> None:
    key, hashed = new_key()
    with running(tiny, keys=Keys({"me": hashed})) as server:

        async def connect(query: str) -> str:
            async with websockets.connect(server.url.replace("http", "ws") + "/v1/live" + query) as socket:
                await socket.send('{"type": "start"}')
                return str(json.loads(await socket.recv())["type"])

        assert asyncio.run(connect(f"?key={key}")) == "ready"
        for query in ("", "?key=wrong"):
            with pytest.raises(websockets.InvalidStatus):
                asyncio.run(connect(query))


def test_the_client_in_the_repository(served: Running, speech: np.ndarray, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", speech, SAMPLE_RATE)
    url = served.url.replace("http", "ws") + "/v1/live"
    command = [sys.executable, str(ROOT / "examples" / "live_client.py"), str(tmp_path / "a.wav"), "--url", url]
    result = subprocess.run([*command, "--language", "es", "--speed", "20"], capture_output=True, text=True, check=True)
    assert result.stdout.count("[") >= 2
    assert "gracias" in result.stdout


class Numbered:
    """Recognises a sound that says its own words: every half second at level n is the word n; a half second that is not
    whole is a piece of it. As the model, it begins with what it is told to begin with."""

    name, max_window, knows_tokens = "numbered", 10.0, False

    def open(self, options: TranscriptionOptions, on_window: Any = None, on_partial: Any = None) -> Job:
        windows: list[Window] = []

        def take(job: Job, content: Window | float | None) -> None:
            if isinstance(content, Window):
                windows.append(content)
            elif content is not None:
                for window in windows:
                    job.heard(self.heard(window, options.prefix))
                job.future.set_result(Transcript("", (), "Hebrew", content, 0))

        return Job(take, options, on_window, on_partial)

    def heard(self, window: Window, prefix: str) -> HeardWindow:
        words, half = [], SAMPLE_RATE // 2
        for first in range(window.first // half * half, window.first + len(window.samples), half):
            inside = window.samples[max(0, first - window.first) : max(0, first + half - window.first)]
            number = round(float(np.median(inside)) * 1_000)
            if number and len(inside) > 0.2 * half:
                words.append(f"w{number}" if len(inside) > 0.9 * half else f"piece{number}")
        begun = prefix.split()
        assert begun == words[: len(begun)] or "piece" in " ".join(words[: len(begun)]), "what is stable was heard so"
        words[: len(begun)] = begun
        said = tuple(RecognisedWord(word, 0.9) for word in words)
        segment = TimedText(window.start, window.end, " ".join(words), said)
        hypothesis = Hypothesis(segment.text, "Hebrew", truncated=False, words=said)
        return HeardWindow(0, window, hypothesis, (segment,) if words else (), untimed=False)

    def written_tokens(self, hypothesis: Hypothesis) -> list[tuple[bytes, float]]:
        return []

    def close(self) -> None:
        """Nothing to do."""


@pytest.mark.parametrize("start", [0, 1_700])
def test_speech_without_a_pause_is_whole_however_long_it_is(monkeypatch: pytest.MonkeyPatch, start: int) -> None:
    """Trap: words that were stable beyond the end of a window were said by two utterances."""
    monkeypatch.setattr("caspi.serving.live.speech_detector", lambda: Everything)
    words = [f"w{number}" for number in range(1, 91)]
    sound = np.repeat(np.arange(1, 91, dtype=np.float32) / 1_000, SAMPLE_RATE // 2)
    sound = np.concatenate([np.zeros(start, np.float32), sound, np.zeros(-start % 8_000, np.float32)])
    with serving(application(Numbered())) as address:
        found = asyncio.run(_talk(address, sound, {"language": "he"}, 8.0))
    finals = messages(found, "final")
    assert len(finals) >= 5
    said = " ".join(final["text"] for final in finals).split()
    assert [word for word in said if not word.startswith("piece")] == words
    assert sum(word.startswith("piece") for word in said) <= 2  # at the beginning and the end, where it is cut
    for number in range(len(finals)):
        stable = ""
        for message in messages(found, "partial"):
            if message["utterance"] == number:
                assert message["stable"].startswith(stable)
                stable = message["stable"]
        assert finals[number]["text"].startswith(stable)


def test_a_stable_word_that_grows_stays_as_it_was_shown() -> None:
    """Trap: the model may go on with the last word that it is made to begin with: `pub` became `publa`."""
    utterance = _Utterance()

    def said(text: str) -> HeardWindow:
        words = tuple(RecognisedWord(word, 0.9) for word in text.split())
        hypothesis = Hypothesis(text, "Spanish", truncated=False, words=words)
        segment = TimedText(0.0, 1.0, text, words)
        return HeardWindow(0, Window(0, np.zeros(1, np.float32)), hypothesis, (segment,), untimed=False)

    for text in ("pub cas", "pub casa", "publa casa grande", "publa casa grande ilpero"):
        utterance.agree(said(text))
        assert utterance.text.startswith(utterance.stable)
    assert utterance.stable == "pub casa grande"
    assert utterance.final_words(said("publa casa grande ilpero"))[0].text == "pub"
