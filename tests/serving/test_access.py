"""Keys, limits, health and figures, and a server that is asked to end."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
import websockets
from prometheus_client.parser import text_string_to_metric_families

from caspi import audio
from caspi.commands import serve
from caspi.errors import UsageError
from caspi.model.loading import LoadedModel
from caspi.serving.access import Gate, Keys, Limits, TooMany, new_key
from tests.serving.conftest import Running, running

PATH = "/v1/audio/transcriptions"


def post(server: Running, content: bytes, key: str | None = None, **more: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return httpx.post(server.url + PATH, files={"file": content}, headers=headers, timeout=60, **more)


@pytest.fixture(scope="module")
def spoken(clips: list[np.ndarray]) -> bytes:
    return audio.encode_flac(clips[0])


@pytest.fixture(scope="module")
def key() -> tuple[str, str]:
    return new_key()


@pytest.fixture(scope="module")
def guarded(tiny: LoadedModel, key: tuple[str, str]) -> Iterator[Running]:
    limits = Limits(requests=8, per_key=3, body_seconds=1.0)
    with running(tiny, keys=Keys({"me": key[1], "you": new_key()[1]}), limits=limits) as server:
        yield server


def test_who_has_no_key_gets_nothing(guarded: Running, key: tuple[str, str], spoken: bytes) -> None:
    for wrong in (None, "", "caspi-x", key[1], key[0][:-1]):
        answer = post(guarded, spoken, wrong)
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
    assert httpx.get(guarded.url + "/v1/models").status_code == 401
    assert httpx.get(guarded.url + "/metrics").status_code == 401
    assert post(guarded, spoken, key[0]).json()["text"]
    client = openai.OpenAI(api_key="wrong", base_url=guarded.url + "/v1", max_retries=0)
    with client, pytest.raises(openai.AuthenticationError, match="no valid API key"):
        client.models.list()


def test_health_needs_no_key(guarded: Running) -> None:
    assert httpx.get(guarded.url + "/health").json() == {"status": "ok"}
    assert httpx.get(guarded.url + "/ready").json() == {"status": "ready", "model": "tiny"}


def test_keys_come_from_a_file_and_the_environment(tmp_path: Path, key: tuple[str, str]) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# who\n\nthe speech group {key[1]}\n")
    keys = Keys.of(file, {"CASPI_API_KEYS": "one, two"})
    assert [keys.holder(given) for given in (key[0], "two", "three")] == ["the speech group", "environment-2", None]
    assert not Keys.of(None, {})
    for content, message in (("me plain-key\n", "line 1: not NAME sha256:HASH"), ("# nobody\n", "no key")):
        file.write_text(content)
        with pytest.raises(UsageError, match=message):
            Keys.of(file, {})


def test_a_new_key_is_shown_once_with_the_line_for_the_file(tmp_path: Path) -> None:
    made = serve.new_key("me").summary
    (tmp_path / "keys").write_text(made["line"] + "\n")
    assert Keys.of(tmp_path / "keys", {}).holder(made["key"]) == "me"
    assert made["key"] not in made["line"]


def test_other_addresses_need_keys_or_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CASPI_API_KEYS", raising=False)
    for host in ("0.0.0.0", "192.168.1.5", "::", "example"):
        with pytest.raises(UsageError, match=f"--host {host}: everybody who reaches it"):
            serve.run("tiny", serve.ServeOptions(host=host))


def test_too_many_requests_are_told_when_to_try_again(
    guarded: Running, key: tuple[str, str], clips: list[np.ndarray]
) -> None:
    long = audio.encode_flac(np.tile(np.concatenate(clips), 100))
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: post(guarded, long, key[0]), range(6)))
    refused = [answer for answer in answers if answer.status_code == 429]
    assert 1 <= len(refused) <= 3
    assert len(refused) + sum(answer.status_code == 200 for answer in answers) == 6
    assert all(int(answer.headers["Retry-After"]) >= 1 for answer in refused)
    assert refused[0].json()["error"]["type"] == "rate_limit_error"


def test_the_gate_counts_all_and_each() -> None:
    gate = Gate(Limits(requests=3, per_key=2))
    for name in ("a", "a", "b"):
        gate.enter(name)
    with pytest.raises(TooMany, match="on this server"):
        gate.enter("c")
    gate.leave("b", 1.0)
    with pytest.raises(TooMany, match="with this key"):
        gate.enter("a")
    gate.enter("c")
    assert gate.open == 3


def test_a_body_that_does_not_come_ends(guarded: Running, key: tuple[str, str], spoken: bytes) -> None:
    host, _, port = guarded.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as half:
        head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key[0]}\r\nContent-Length: 5000\r\n"
        half.sendall(f"{head}Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n".encode())
        began = time.monotonic()
        assert half.recv(1000).startswith(b"HTTP/1.1 408")
        assert time.monotonic() - began < 5
    assert post(guarded, spoken, key[0]).status_code == 200


def test_figures_for_prometheus(served: Running, spoken: bytes) -> None:
    post(served, spoken)
    post(served, b"no audio")
    families = {
        family.name: family for family in text_string_to_metric_families(httpx.get(served.url + "/metrics").text)
    }
    counts = {
        sample.labels["status"]: sample.value
        for sample in families["caspi_requests"].samples
        if sample.labels.get("status")
    }
    assert (counts["200"], counts["400"]) >= (1, 1)
    assert families["caspi_audio_seconds"].samples[0].value >= len(audio.decode(spoken)) / 16_000 - 0.01
    assert families["caspi_open_requests"].samples[0].value == 0


def test_the_log_has_no_transcript_unless_it_is_asked_for(
    served: Running, tiny: LoadedModel, spoken: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    text = post(served, spoken).json()["text"]
    with running(tiny, log_transcripts=True) as other:
        post(other, spoken)
    first, second = [json.loads(r.message) for r in caplog.records if r.name == "caspi.requests"][-2:]
    assert set(first) == {"time", "request", "key", "path", "status", "seconds", "audio_seconds"}
    assert (first["status"], second["text"]) == (200, text)


def test_other_sites_may_not_use_it_unless_they_are_named(served: Running, tiny: LoadedModel) -> None:
    asked = {"Origin": "https://other.example", "Access-Control-Request-Method": "POST"}
    assert "access-control-allow-origin" not in httpx.options(served.url + PATH, headers=asked).headers
    with running(tiny, origins=("https://other.example",)) as open_one:
        headers = httpx.options(open_one.url + PATH, headers=asked).headers
        assert headers["access-control-allow-origin"] == "https://other.example"


def test_pages_of_others_and_false_names_are_refused(tiny: LoadedModel, spoken: bytes) -> None:
    """Trap: a browser lets any page post to a server on this machine, and open WebSockets to it."""
    with running(tiny, hosts=frozenset({"127.0.0.1", "localhost"})) as server:
        own = server.url
        for origin, status in ((None, 200), (own, 200), ("http://evil.example", 403), ("null", 403)):
            headers = {"Origin": origin} if origin else {}
            answer = httpx.post(own + PATH, files={"file": spoken}, headers=headers, timeout=60)
            assert answer.status_code == status, origin
        assert httpx.get(own, headers={"Host": "evil.example:8000"}).status_code == 403
        assert httpx.get(own.replace("127.0.0.1", "localhost")).status_code == 200

        async def connect(origin: str) -> None:
            async with websockets.connect(own.replace("http", "ws") + "/v1/live", origin=origin) as live:
                await live.send('{"type": "start"}')

        asyncio.run(connect(own))
        with pytest.raises(websockets.InvalidStatus):
            asyncio.run(connect("http://evil.example"))


def test_a_port_that_another_program_has_is_told_at_once() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(UsageError, match=f"--port {other.getsockname()[1]}: .*in use"):
            serve.run("tiny", serve.ServeOptions(port=other.getsockname()[1]))


def test_streams_and_live_speech_are_in_the_log_and_the_figures(
    tiny: LoadedModel, spoken: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with running(tiny, log_transcripts=True) as server:
        post(server, spoken, data={"stream": "true"})
        post(server, b"no audio", data={"stream": "true"})
        found = asyncio.run(_live(server.url, audio.decode(spoken)))
        figures = httpx.get(server.url + "/metrics").text
    good, bad, live = [json.loads(r.message) for r in caplog.records if r.name == "caspi.requests"][-3:]
    assert good["text"]
    assert good["audio_seconds"] == pytest.approx(len(audio.decode(spoken)) / 16_000, abs=0.01)
    assert bad["error"].startswith("corrupt_audio")
    assert (live["status"], live["text"]) == (101, found)
    assert "caspi_windows_total 1.0" in figures


async def _live(url: str, samples: np.ndarray) -> str:
    async with websockets.connect(url.replace("http", "ws") + "/v1/live") as socket_:
        await socket_.send('{"type": "start", "language": "es"}')
        await socket_.send((samples * 32_767).astype("<i2").tobytes())
        await socket_.send('{"type": "stop"}')
        messages = [json.loads(message) async for message in socket_]
    return " ".join(message["text"] for message in messages if message["type"] == "final")


@pytest.mark.slow
def test_a_server_that_is_asked_to_end_finishes_what_is_open(clips: list[np.ndarray], tmp_path: Path) -> None:
    """As a process: SIGTERM while a recording is transcribed; its text comes, and nothing is left."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "caspi", "serve", "tiny", "--port", str(port)]
    process = subprocess.Popen(command, env={**os.environ, "TMPDIR": str(tmp_path)})
    try:
        url = f"http://127.0.0.1:{port}"
        for _ in range(600):
            try:
                assert httpx.get(url + "/ready").status_code == 200
                break
            except httpx.TransportError:
                time.sleep(0.1)
        gap = np.zeros(3 * 16_000, np.float32)
        long = audio.encode_flac(np.tile(np.concatenate([part for clip in clips for part in (clip, gap)]), 120))
        found: list[httpx.Response] = []
        asking = threading.Thread(
            target=lambda: found.append(
                httpx.post(url + PATH, files={"file": long}, data={"language": "es"}, timeout=100)
            )
        )
        asking.start()
        time.sleep(1.5)
        process.send_signal(signal.SIGTERM)
        asking.join(timeout=100)
        assert found[0].status_code == 200
        assert len(found[0].json()["text"]) > 1_000
        assert process.wait(timeout=30) in (0, -signal.SIGTERM)
        assert not list(tmp_path.glob("caspi-upload-*"))
    finally:
        process.kill()
        process.wait()
