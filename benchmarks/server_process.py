"""A `caspi serve` process for the benchmarks of serving, and what it uses."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

PATH = "/v1/audio/transcriptions"


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
def serving(model: str, *options: str, temporary: Path | None = None, log: Path = Path(os.devnull)) -> Iterator[Server]:
    """Serves until it is left. temporary: for uploads."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "caspi", "serve", model, "--port", str(port), *options]
    environment = os.environ | ({"TMPDIR": str(temporary)} if temporary else {})
    with log.open("wb") as errors:
        process = subprocess.Popen(command, stderr=errors, env=environment)
    try:
        url = f"http://127.0.0.1:{port}"
        while process.poll() is None:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{url}/ready").status_code == 200:
                    break
            time.sleep(0.2)
        else:
            raise SystemExit(f"the server ended with {process.returncode}: see {log}")
        yield Server(url, process)
    finally:
        process.terminate()
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
