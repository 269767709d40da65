"""A seeded generator of damaged and misleading inputs."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile

from tests.conftest import tone
from tests.support import encoded

_FORMATS = (
    (16_000, "mp3", "libmp3lame"), (44_100, "mp3", "libmp3lame"), (48_000, "ogg", "libopus"),
    (16_000, "flac", "flac"), (16_000, "wav", "pcm_s16le"), (44_100, "mp4", "aac"), (48_000, "webm", "libopus"),
)  # fmt: skip
_NAMES = ("plain", "with space", 'it\'s "quoted"', "שם בעברית", "new\nline", "emoji🎧", "semi;colon&amp", "%00", "-rf")


def damaged_inputs(folder: Path, count: int, seed: int) -> Path:
    """Writes `count` files and their manifest; every line has a text that would be kept."""
    draw = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    kinds = list(_DAMAGE)
    with (folder / "m.jsonl").open("w", encoding="utf-8") as manifest:
        for number in range(count):
            rate, container, codec = _FORMATS[draw.integers(len(_FORMATS))]
            clip = tone(float(draw.uniform(0.6, 3.0)), rate, seed=int(draw.integers(1 << 30)))
            name = f"{number}-{_NAMES[draw.integers(len(_NAMES))]}.{container}"
            content = encoded(clip, rate, container, codec)
            path = folder / name
            path.write_bytes(_DAMAGE[kinds[number % len(kinds)]](content, draw))
            manifest.write(json.dumps({"audio": name, "text": f"שלום לכם חברים {number}", "id": f"d{number}"}) + "\n")
    return folder / "m.jsonl"


def _truncated(content: bytes, draw: np.random.Generator) -> bytes:
    """Cuts at different places: in the header, in a frame, just before the end."""
    places = (draw.integers(1, 12), draw.integers(12, 200), draw.integers(len(content)), len(content) - 1)
    return content[: int(places[draw.integers(4)])]


def _flipped(content: bytes, draw: np.random.Generator) -> bytes:
    data = bytearray(content)
    for _ in range(int(draw.integers(1, 60))):
        data[draw.integers(len(data))] ^= 1 << int(draw.integers(8))
    return bytes(data)


def _header_flipped(content: bytes, draw: np.random.Generator) -> bytes:
    data = bytearray(content)
    for _ in range(int(draw.integers(1, 8))):
        data[draw.integers(min(64, len(data)))] = int(draw.integers(256))
    return bytes(data)


def _hole(content: bytes, draw: np.random.Generator) -> bytes:
    start = int(draw.integers(len(content)))
    return content[:start] + b"\0" * int(draw.integers(1, 4000)) + content[start:]


def _joined(content: bytes, draw: np.random.Generator) -> bytes:
    return content + encoded(tone(0.7, 22_050, seed=int(draw.integers(1000))), 22_050, "mp3", "libmp3lame")


def _wav(rate: int, channels: int, samples: np.ndarray) -> bytes:
    """A 32-bit float WAV with any header values."""
    body = samples.astype("<f4").tobytes()
    form = struct.pack("<HHIIHH", 3, channels, rate, rate * channels * 4 & 0xFFFFFFFF, (channels * 4) & 0xFFFF, 32)
    return (
        b"RIFF" + struct.pack("<I", 36 + len(body)) + b"WAVEfmt " + struct.pack("<I", 16) + form
        + b"data" + struct.pack("<I", len(body)) + body
    )  # fmt: skip


def _not_finite(content: bytes, draw: np.random.Generator) -> bytes:
    clip = tone(1.0)
    clip[int(draw.integers(len(clip)))] = (np.nan, np.inf, -np.inf)[draw.integers(3)]
    return _wav(16_000, 1, clip)


def _strange_rate(content: bytes, draw: np.random.Generator) -> bytes:
    rate = (0, 1, 7, 192_000, 768_000, 4_294_967_295)[draw.integers(6)]
    return _wav(rate, 1, tone(1.0, 192_000, seed=int(draw.integers(1000))))


def _many_channels(content: bytes, draw: np.random.Generator) -> bytes:
    channels = (0, 2, 6, 8, 255)[draw.integers(5)]
    clip = tone(1.0, seed=int(draw.integers(1000)))
    return _wav(16_000, channels, np.repeat(clip, max(1, channels)))


_DAMAGE: dict[str, Callable[[bytes, np.random.Generator], bytes]] = {
    "none": lambda content, draw: content,
    "truncated": _truncated,
    "flipped": _flipped,
    "header": _header_flipped,
    "hole": _hole,
    "joined": _joined,
    "empty": lambda content, draw: b"",
    "zeros": lambda content, draw: b"\0" * int(draw.integers(1, 5000)),
    "noise": lambda content, draw: draw.bytes(int(draw.integers(1, 5000))),
    "text": lambda content, draw: "זה לא קול".encode() * int(draw.integers(1, 500)),
    "not finite": _not_finite,
    "rate": _strange_rate,
    "channels": _many_channels,
}


def long_silence(path: Path, hours: float) -> None:
    """Hours of silence, a few kilobytes per hour as FLAC."""
    with soundfile.SoundFile(str(path), "w", 16_000, 1, format="FLAC", subtype="PCM_16") as file:
        minute = np.zeros(60 * 16_000, np.int16)
        for _ in range(int(hours * 60)):
            file.write(minute)
