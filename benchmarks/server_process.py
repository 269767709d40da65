"""A `caspi serve` process for the benchmarks of serving, and what it uses."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import httpx
import psutil

PATH = "/v1/audio/transcriptions"
# Random weights never end a text: every clip takes the 4.4 tokens a second of Hebrew speech.
FIXED_LENGTHS = """\
import math
from caspi.inference import window_decoder
from caspi.inference.engine import requests
window_decoder._SHORTEST_SPLIT = math.inf  # a text at the limit is not decoded again in halves
requests.TOKENS_AT_LEAST, requests.TOKENS_PER_SECOND_LIMIT = 0, 4.4
from caspi.program import main
main()
"""


@dataclass(frozen=True)
class Server:
    """A running server."""

    url: str
    process: subprocess.Popen[bytes]

    def memory(self) -> int:
        """Bytes that the server and its processes use of their own."""
        main = psutil.Process(self.process.pid)
        return sum(one.memory_info().rss for one in (main, *main.children(recursive=True)))

    def decoders(self) -> list[psutil.Process]:
        """The processes that decode uploads."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        return [child for child in children if "spawn_main" in " ".join(child.cmdline())]


@contextlib.contextmanager
def serving(
    model: str, *options: str, temporary: Path | None = None, log: Path | None = None, fixed_lengths: bool = False
) -> Iterator[Server]:
    """Serves until it is left. temporary: for uploads. fixed_lengths: of texts, by FIXED_LENGTHS."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = ["-c", FIXED_LENGTHS] if fixed_lengths else ["-m", "caspi"]
    command = [sys.executable, *program, "serve", model, "--port", str(port), *options]
    environment = os.environ | ({"TMPDIR": str(temporary)} if temporary else {})
    with log.open("w+b") if log else tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(command, stderr=errors, env=environment)
        with _running(process, port, errors) as server:
            yield server


@contextlib.contextmanager
def _running(process: subprocess.Popen[bytes], port: int, errors: IO[bytes]) -> Iterator[Server]:
    try:
        url = f"http://127.0.0.1:{port}"
        while process.poll() is None:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{url}/ready").status_code == 200:
                    break
            time.sleep(0.2)
        else:
            raise SystemExit(f"the server ended with {process.returncode}:\n{_end_of(errors)}")
        yield Server(url, process)
    finally:
        process.terminate()
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _end_of(log: IO[bytes]) -> str:
    with open(log.fileno(), "rb", closefd=False) as written:
        written.seek(max(0, written.seek(0, os.SEEK_END) - 2000))
        return written.read().decode(errors="replace")
