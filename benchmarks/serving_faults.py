"""What `caspi serve` survives: hostile files, killed processes, a full disk, slow clients, bodies that end too early.

    python benchmarks/serving_faults.py [--files 1000] [--model tiny]

After every fault a good request must get its text. Prints a line for each fault; the exit code is 1 if one failed.
The full disk is a small file system in memory, which needs root; without it, that line says so.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import socket
import struct
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import httpx
import numpy as np
from server_process import PATH, Server, serving

from caspi import audio
from caspi.corpus.synthesis.espeak import Voice, speak

DISK_MB = 8


def clip(seconds: float, rate: int, draw: np.random.Generator) -> np.ndarray:
    time_axis = np.arange(int(seconds * rate)) / rate
    return (0.3 * np.sin(2 * np.pi * 220 * time_axis) + 0.01 * draw.standard_normal(len(time_axis))).astype(np.float32)


def encoded(samples: np.ndarray, rate: int, container: str, codec: str) -> bytes:
    with tempfile.NamedTemporaryFile(suffix=f".{container}") as file:
        with av.open(file.name, "w", format=container) as out:
            stream = out.add_stream(codec, rate=rate, layout="mono")
            pcm = (samples * 32_767).astype(np.int16)[None]
            frame = av.AudioFrame.from_ndarray(pcm, format="s16", layout="mono")
            frame.sample_rate = rate
            resampler = av.AudioResampler(format=stream.codec_context.format, layout="mono", rate=rate)
            for part in [*resampler.resample(frame), *resampler.resample(None)]:
                out.mux(stream.encode(part))
            out.mux(stream.encode(None))
        return Path(file.name).read_bytes()


FORMATS = (
    (16_000, "wav", "pcm_s16le"), (16_000, "flac", "flac"), (44_100, "mp3", "libmp3lame"), (48_000, "ogg", "libopus"),
    (44_100, "mp4", "aac"), (48_000, "webm", "libopus"),
)  # fmt: skip


def wav_header(size: int, rate: int = 16_000, channels: int = 1, bits: int = 16, kind: int = 1) -> bytes:
    block = max(1, channels * bits // 8)
    return b"RIFF" + struct.pack("<I", (size + 36) & 0xFFFFFFFF) + b"WAVEfmt " + struct.pack(
        "<IHHIIHH", 16, kind, channels & 0xFFFF, rate & 0xFFFFFFFF, (rate * block) & 0xFFFFFFFF, block & 0xFFFF, bits
    ) + b"data" + struct.pack("<I", size & 0xFFFFFFFF)  # fmt: skip


def hostile_files(count: int) -> Iterator[tuple[str, bytes]]:
    """(what it is, content), the same ones every time."""
    draw = np.random.default_rng(0)
    good = [encoded(clip(2.0, rate, draw), rate, container, codec) for rate, container, codec in FORMATS]
    special: list[tuple[str, Callable[[], bytes]]] = [
        ("nothing", lambda: b""),
        ("random bytes", lambda: draw.bytes(int(draw.integers(1, 100_000)))),
        ("wav that claims 4 GB", lambda: wav_header(0xFFFFFFFF) + bytes(1000)),
        ("wav without channels", lambda: wav_header(1000, channels=0) + bytes(1000)),
        ("wav with 65,535 channels", lambda: wav_header(2**20, channels=65_535) + bytes(2**20)),
        ("wav at 4 GHz", lambda: wav_header(100_000, rate=0xFFFFFFFF) + bytes(100_000)),
        ("wav at 1 Hz", lambda: wav_header(100_000, rate=1) + bytes(100_000)),
        (
            "floats that are no numbers",
            lambda: wav_header(40_000, bits=32, kind=3) + np.full(10_000, np.nan, "<f4").tobytes(),
        ),
        (
            "floats beyond all scale",
            lambda: wav_header(40_000, bits=32, kind=3) + np.full(10_000, 3e38, "<f4").tobytes(),
        ),
        ("a list of other files", lambda: b"ffconcat version 1.0\nfile '/etc/passwd'\n"),
        ("a playlist", lambda: b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"),
        ("a session description", lambda: b"v=0\no=- 0 0 IN IP4 127.0.0.1\nm=audio 9 RTP/AVP 0\nc=IN IP4 127.0.0.1\n"),
        ("a web page", lambda: b"<!doctype html><title>404</title>" * 100),
        ("a compressed bomb", lambda: b"\x1f\x8b\x08" + bytes(1000)),
        ("a picture", lambda: b"\x89PNG\r\n\x1a\n" + draw.bytes(1000)),
        ("mp3 headers only", lambda: b"\xff\xfb\x90\x64" * 20_000),
    ]
    for number in range(count):
        content = bytearray(good[number % len(good)])
        if number % 5 == 0:
            name, make = special[number // 5 % len(special)]
            yield name, make()
        elif number % 5 == 1:
            yield "cut off", bytes(content[: int(draw.integers(1, len(content)))])
        elif number % 5 == 2:
            for _ in range(int(draw.integers(1, 200))):
                content[int(draw.integers(len(content)))] ^= 1 << int(draw.integers(8))
            yield "flipped bits", bytes(content)
        elif number % 5 == 3:
            at, length = int(draw.integers(len(content))), int(draw.integers(1, 2000))
            yield "bytes in the middle", bytes(content[:at]) + draw.bytes(length) + bytes(content[at:])
        else:
            for _ in range(20):  # sizes and lengths are at the beginning
                content[int(draw.integers(min(200, len(content))))] = int(draw.choice([0, 0xFF, 0x7F, 0x80]))
            yield "a wrong header", bytes(content)


class Check:
    """Asks for what must always work."""

    def __init__(self, server: Server) -> None:
        self.server = server
        spoken = speak("la casa grande y el perro", "es", Voice("m1", 150))
        self._content = audio.encode_flac(audio.pcm16(audio.resample(spoken.samples, spoken.sample_rate)))
        self.text = self.ask().json()["text"]
        self.failed = 0

    def ask(self) -> httpx.Response:
        return httpx.post(self.server.url + PATH, files={"file": self._content}, data={"language": "es"}, timeout=60)

    def good(self) -> bool:
        answer = self.ask()
        return answer.status_code == 200 and answer.json()["text"] == self.text

    def report(self, fault: str, found: str, *, passed: bool = True) -> None:
        passed = self.good() and passed
        self.failed += not passed
        print(f"{'ok' if passed else 'FAILED':7} {fault}: {found}", flush=True)


def hostile(check: Check, count: int) -> None:
    tally: Counter[int] = Counter()
    bad: Counter[str] = Counter()
    disturbed, slowest = 0, 0.0
    with httpx.Client(base_url=check.server.url, timeout=90) as http:
        for number, (kind, content) in enumerate(hostile_files(count)):
            began = time.monotonic()
            answer = http.post(PATH, files={"file": ("a.wav", content)}, data={"language": "es"})
            slowest = max(slowest, time.monotonic() - began)
            tally[answer.status_code] += 1
            if answer.status_code >= 500:
                bad[kind] += 1
            if number % 10 == 0:
                disturbed += not check.good()
    answers = ", ".join(f"{n} x {status}" for status, n in sorted(tally.items()))
    check.report(
        f"{count} hostile files",
        f"{answers}; slowest {slowest:.1f} s; {disturbed} good requests between them disturbed; 5xx for {dict(bad)}",
        passed=not disturbed and not bad,
    )


def killed_decoders(check: Check) -> None:
    """Kills the processes that decode, while they do and while they do not."""
    long = audio.encode_flac(np.tile(audio.pcm16(clip(60, 16_000, np.random.default_rng(1))), 40))
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(httpx.post, check.server.url + PATH, files={"file": long}, timeout=120)
        time.sleep(1.0)
        killed = 0
        for process in check.server.decoders():  # one works, the others wait
            with contextlib.suppress(Exception):
                process.kill()
                killed += 1
        answer = asking.result()
    check.report(
        f"{killed} decoders killed",
        f"the request in them: {answer.status_code}",
        passed=answer.status_code in (200, 400),
    )


def half_sent(check: Check, count: int = 50) -> None:
    """Bodies that end in the middle."""
    host, _, port = check.server.url.removeprefix("http://").partition(":")
    for _ in range(count):
        with socket.create_connection((host, int(port))) as connection:
            head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n"
            connection.sendall(f"{head}Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n".encode())
    time.sleep(2)
    open_requests = [
        line
        for line in httpx.get(check.server.url + "/metrics").text.splitlines()
        if line.startswith("caspi_open_requests ")
    ]
    check.report(
        f"{count} bodies that end in the middle", open_requests[0], passed=open_requests == ["caspi_open_requests 0.0"]
    )


def slow_clients(check: Check, count: int = 50) -> None:
    """Who send a byte a second; others are answered meanwhile."""
    host, _, port = check.server.url.removeprefix("http://").partition(":")
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(socket.create_connection((host, int(port)))) for _ in range(count)]
        for connection in connections:
            head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n"
            connection.sendall(f"{head}Content-Type: multipart/form-data; boundary=x\r\n\r\n".encode())
        took = []
        for _ in range(5):
            for connection in connections:
                connection.sendall(b"-")
            began = time.monotonic()
            answered = check.good()
            took.append(time.monotonic() - began if answered else float("inf"))
    check.report(
        f"{count} clients that send a byte a second", f"others wait {max(took):.2f} s at most", passed=max(took) < 5
    )


def gone_clients(check: Check, count: int = 50) -> None:
    """Who leave before they are answered."""
    long = audio.encode_flac(np.tile(audio.pcm16(clip(10, 16_000, np.random.default_rng(2))), 30))

    def leave(_: int) -> None:
        with contextlib.suppress(httpx.TimeoutException):
            httpx.post(check.server.url + PATH, files={"file": long}, data={"vad": "false"}, timeout=0.3)

    with ThreadPoolExecutor(10) as pool:
        list(pool.map(leave, range(count)))
    began = time.monotonic()
    answered = check.good()
    waited = time.monotonic() - began
    check.report(f"{count} clients that leave", f"the next one waits {waited:.1f} s", passed=answered and waited < 20)


def full_disk(model: str) -> bool:
    """A server whose uploads go to a disk of a few megabytes."""
    folder = Path(tempfile.mkdtemp(prefix="caspi-small-disk-"))
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        print("skipped a full disk: no right to mount one")
        folder.rmdir()
        return True
    try:
        with serving(model, temporary=folder) as server:
            check = Check(server)
            big = os.urandom((DISK_MB + 4) << 20)
            answers = Counter(
                httpx.post(server.url + PATH, files={"file": big}, timeout=60).status_code for _ in range(3)
            )
            left = [path.name for path in folder.glob("caspi-upload-*")]
            check.report(
                "a full disk", f"{dict(answers)}; files left: {left}", passed=set(answers) == {507} and not left
            )
            return not check.failed
    finally:
        subprocess.run(["umount", str(folder)], check=False)
        shutil.rmtree(folder, ignore_errors=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--model", default="tiny")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="caspi-faults-"))
    try:
        with serving(options.model, temporary=folder) as server:
            check = Check(server)
            before = server.memory() / 2**20
            hostile(check, options.files)
            killed_decoders(check)
            half_sent(check)
            slow_clients(check)
            gone_clients(check)
            left = [path.name for path in folder.glob("caspi-upload-*")]
            after = server.memory() / 2**20
            check.report(
                "what is left", f"{len(left)} uploads; {before:.0f} MiB before, {after:.0f} MiB after", passed=not left
            )
            failed = bool(check.failed)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return int(not full_disk(options.model) or failed)


if __name__ == "__main__":
    raise SystemExit(main())
