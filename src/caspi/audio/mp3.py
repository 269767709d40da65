"""Recognises mp3 files, and splits those that were joined from several."""

from __future__ import annotations

import re
from pathlib import Path

from caspi.audio.headers import MAX_TRAILING_BYTES

# The first frame of an mp3, with the length instead of audio; the position of its tag depends on the MPEG version.
_INFO_FRAME = re.compile(rb"\xff[\xe2-\xff].{2}(?:.{9}|.{17}|.{32})(?:Xing|Info)\x00\x00\x00", re.DOTALL)


def is_mp3(head: bytes) -> bool:
    return head[:3] == b"ID3" or (len(head) > 2 and head[0] == 0xFF and head[1] in (0xFB, 0xF3, 0xF2, 0xFA))


def split_joined_mp3(source: bytes | Path) -> list[bytes]:
    """The files that an mp3 was joined from, empty for a single file: libsndfile stops at the end of the first one."""
    content = source if isinstance(source, bytes) else source.read_bytes()
    starts = [match.start() for match in _INFO_FRAME.finditer(content)]
    cuts = set(starts[1:])
    for start, next_start in zip(starts, [*starts[1:], len(content)], strict=False):
        end = start + _declared_size(content, start)
        if start < end < next_start - MAX_TRAILING_BYTES and is_mp3(content[end : end + 12]):
            cuts.add(end)  # the next part is an mp3 without an info frame
    ends = [*sorted(cuts), len(content)]
    return [content[start:end] for start, end in zip([0, *ends], ends, strict=False)] if cuts else []


def _declared_size(content: bytes, start: int) -> int:
    """Number of bytes that the info frame at `start` declares, including itself; 0 if it declares none."""
    tag_position = min(position for tag in (b"Xing", b"Info") if (position := content.find(tag, start)) >= 0)
    flags = int.from_bytes(content[tag_position + 4 : tag_position + 8], "big")
    position = tag_position + 8 + (4 if flags & 1 else 0)
    return int.from_bytes(content[position : position + 4], "big") if flags & 2 else 0
