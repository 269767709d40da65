"""Starts caspi once for each GPU of this machine, as torchrun does, and ends as these processes end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from types import FrameType

from caspi.interrupts import Interrupted

_LOOK_SECONDS = 0.2
_GRACE_SECONDS = 60.0  # for the others, after one has failed


def launch(arguments: Sequence[str], count: int) -> int:
    """Runs `caspi ARGUMENTS` in `count` processes. Returns 0, or the exit code of one that failed; 75 where they were
    asked to end and saved. SIGTERM goes to all of them; Ctrl-C, which a terminal sends to all, is theirs to answer."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    processes = [
        subprocess.Popen(  # noqa: S603 - this program
            [sys.executable, "-m", "caspi", *arguments],
            env=os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(count)
    ]

    def forward(number: int, frame: FrameType | None) -> None:
        for process in processes:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, forward), signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        return _ended(processes)
    finally:
        signal.signal(signal.SIGTERM, before[0])
        signal.signal(signal.SIGINT, before[1])


def _ended(processes: Sequence[subprocess.Popen[bytes]]) -> int:
    """Waits for all; after one has failed, the others are stopped, which would wait for it for ever."""
    failed: tuple[int, float] | None = None  # its exit code, and when
    while any(process.poll() is None for process in processes):
        codes = [process.poll() for process in processes]
        code = next((code for code in codes if code not in (None, 0, Interrupted.exit_code)), None)
        if code is not None and failed is None:
            failed = code, time.monotonic()
            for process in processes:
                if process.poll() is None:
                    process.terminate()
        if failed is not None and time.monotonic() > failed[1] + _GRACE_SECONDS:
            for process in processes:
                process.kill()
        time.sleep(_LOOK_SECONDS)
    if failed is not None:
        return failed[0]
    ended = [process.returncode for process in processes]
    return next((code for code in ended if code not in (0, Interrupted.exit_code)), max(ended))
