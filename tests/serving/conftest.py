"""A real server on a real port."""

from __future__ import annotations

import contextlib
import functools
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import uvicorn
from fastapi import FastAPI

from caspi.alignment.align import Aligner
from caspi.alignment.transcripts import with_word_times
from caspi.inference.transcriber import Transcriber
from caspi.model.loading import LoadedModel
from caspi.serving.app import ServerOptions, application
from caspi.serving.shared import SharedTranscriber
from tests.support import voice

TEXTS = ["la casa grande", "el perro come pan", "muchas gracias", "una ciudad antigua"]


@dataclass(frozen=True)
class Running:
    """The address of a server, and what transcribes for it."""

    url: str
    transcriber: Transcriber


@contextlib.contextmanager
def running(model: LoadedModel, **options: Any) -> Iterator[Running]:
    """Serves in a thread until it is left."""
    transcriber = Transcriber(model)
    with serving(application(SharedTranscriber(transcriber, "tiny"), ServerOptions(**options))) as url:
        yield Running(url, transcriber)


@contextlib.contextmanager
def serving(app: FastAPI) -> Iterator[str]:
    """An application on a free port until it is left; gives its address."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=20))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="module")
def served(tiny: LoadedModel) -> Iterator[Running]:
    """One server for the tests of a file, which finds the times of words."""
    aligner = Aligner.of("tiny-aligner", "cpu")
    with running(tiny, time_words=lambda spoken: functools.partial(with_word_times, aligner, spoken)) as made:
        yield made


@pytest.fixture(scope="session")
def clips() -> list[np.ndarray]:
    return [voice(text, number) for number, text in enumerate(TEXTS)]
