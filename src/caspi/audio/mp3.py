"""Recognises mp3 and finds the files that one was joined from."""

from __future__ import annotations

import re
from pathlib import Path

from caspi.audio.headers import UNACCOUNTED

# The frame of an mp3 that has no audio but the length of the rest, by the position of its mark in MPEG 1 and 2.
_FIRST_FRAME = re.compile(rb"\xff[\xe2-\xff].{2}(?:.{9}|.{17}|.{32})(?:Xing|Info)\x00\x00\x00", re.DOTALL)


def is_mp3(head: bytes) -> bool:
    return head[:3] == b"ID3" or (len(head) > 2 and head[0] == 0xFF and head[1] in (0xFB, 0xF3, 0xF2, 0xFA))


def joined_mp3(source: bytes | Path) -> list[bytes]:
    """The files that an mp3 was joined from, empty for a single file: libsndfile stops at the end of the first one."""
    content = source if isinstance(source, bytes) else source.read_bytes()
    firsts = [place.start() for place in _FIRST_FRAME.finditer(content)]
    cuts = set(firsts[1:])
    for first, following in zip(firsts, [*firsts[1:], len(content)], strict=False):
        end = first + _bytes_of_mp3(content, first)
        if first < end < following - UNACCOUNTED and is_mp3(content[end : end + 12]):
            cuts.add(end)  # the next part is an mp3 without such a frame
    ends = [*sorted(cuts), len(content)]
    return [content[start:end] for start, end in zip([0, *ends], ends, strict=False)] if cuts else []


def _bytes_of_mp3(content: bytes, first: int) -> int:
    """Number of bytes that the first frame of an mp3 declares, including itself; 0 if it declares none."""
    mark = min(at for tag in (b"Xing", b"Info") if (at := content.find(tag, first)) >= 0)
    flags = int.from_bytes(content[mark + 4 : mark + 8], "big")
    at = mark + 8 + (4 if flags & 1 else 0)
    return int.from_bytes(content[at : at + 4], "big") if flags & 2 else 0
