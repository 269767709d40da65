"""A client of `caspi serve` for live speech: sends an audio file, or raw samples from stdin, as fast as it is spoken.

    python examples/live_client.py talk.wav --language he
    arecord -q -t raw -f S16_LE -r 16000 -c 1 | python examples/live_client.py - --language he

Needs the packages numpy, soundfile and websockets. The protocol is in docs/serving.md.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator

import numpy as np
import soundfile
import websockets

STEP = 0.1  # seconds of audio in one message


async def samples_of(source: str, speed: float) -> AsyncIterator[tuple[int, bytes]]:
    """(sample rate, signed 16-bit samples), a tenth of a second at a time."""
    if source == "-":
        while block := await asyncio.to_thread(sys.stdin.buffer.read, int(2 * 16_000 * STEP)):
            yield 16_000, block
        return
    sound, rate = soundfile.read(source, dtype="float32", always_2d=True)
    mono = np.clip(sound.mean(axis=1) * 32_767, -32_768, 32_767).astype("<i2")
    started = time.monotonic()
    for number, first in enumerate(range(0, len(mono), int(rate * STEP))):
        await asyncio.sleep(max(0.0, started + number * STEP / speed - time.monotonic()))
        yield rate, mono[first : first + int(rate * STEP)].tobytes()


async def send(socket: websockets.ClientConnection, source: str, speed: float, start: dict[str, object]) -> None:
    """The start, the samples, the stop."""
    started = False
    async for rate, block in samples_of(source, speed):
        if not started:
            await socket.send(json.dumps({"type": "start", "sample_rate": rate, **start}))
            started = True
        await socket.send(block)
    await socket.send(json.dumps({"type": "stop"}))


async def main(options: argparse.Namespace) -> int:
    """Shows what is recognised: the line of an utterance while it is spoken, then its final text."""
    headers = {"Authorization": f"Bearer {key}"} if (key := os.environ.get("CASPI_API_KEY")) else {}
    async with websockets.connect(options.url, additional_headers=headers) as socket:
        sending = asyncio.create_task(
            send(socket, options.source, options.speed, {"language": options.language, "context": options.context})
        )
        async for message in socket:
            found = json.loads(message)
            if options.json:
                print(json.dumps(found, ensure_ascii=False), flush=True)
            elif found["type"] == "partial":
                print(f"\r\033[K{found['stable']}|{found['text'][len(found['stable']) :]}", end="", flush=True)
            elif found["type"] == "final":
                print(f"\r\033[K[{found['start']:7.2f} - {found['end']:7.2f}] {found['text']}", flush=True)
            elif found["type"] == "error":
                print(found["message"], file=sys.stderr)
                return 1
            elif found["type"] == "done":
                break
        await sending
    return 0


def run(options: argparse.Namespace) -> int:
    """One line where the server is not there, refuses, or ends."""
    try:
        return asyncio.run(main(options))
    except (OSError, websockets.WebSocketException) as error:
        print(f"{options.url}: {error}; a key goes into CASPI_API_KEY", file=sys.stderr)
        return 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="an audio file, or - for raw samples of 16 bits at 16 kHz")
    parser.add_argument("--url", default="ws://127.0.0.1:8000/v1/live")
    parser.add_argument("--language", default="he")
    parser.add_argument("--context", default="")
    parser.add_argument("--speed", type=float, default=1.0, help="times as fast as it was spoken")
    parser.add_argument("--json", action="store_true", help="print the messages as they are")
    raise SystemExit(run(parser.parse_args()))
