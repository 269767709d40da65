"""Compares the length that a file declares with its size, without decoding."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from caspi.audio.base import Seconds
from caspi.audio.raw_bytes import read_bytes, size_in_bytes

MAX_TRAILING_BYTES = 4096  # bytes that may follow the chunks of a WAV file: tags of other formats, padding
_MAX_OGG_PAGE = 27 + 255 + 255 * 255  # bytes, at most (RFC 3533, section 6)


def failed_download(head: bytes) -> str:
    """What a file is that a failed download left instead of audio; "" for any other."""
    if head.startswith(b"version https://git-lfs"):
        return "a git-lfs pointer, not the file: git lfs pull"
    if head.lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return "an HTML page, not audio: the download failed"
    return ""


def truncation_ratio(source: bytes | Path) -> float:
    """Ratio of the declared to the real size, at least 1, of a WAV, AVI, Wave64 or CAF file: decoders use the real
    size. 1 for others, and for streams of unknown length, as pipes write them."""
    head, declared_size = read_bytes(source), _declared_size(source)
    is_stream = head[:4] == b"RIFF" and declared_size >= 0x7FFFFFFF
    if is_stream or declared_size >= 1 << 62 or head[:4] == b"FORM":
        return 1.0
    return max(1.0, declared_size / size_in_bytes(source))


def _declared_size(source: bytes | Path) -> int:
    """Size of a WAV, AVI, Wave64, AIFF or CAF file according to its header; 0 for other formats."""
    head = read_bytes(source, 24)
    if head[:4] == b"RIFF":
        return int.from_bytes(head[4:8], "little") + 8
    if head[:4] == b"FORM":
        return int.from_bytes(head[4:8], "big") + 8
    if head[:4] == b"riff":
        return int.from_bytes(head[16:24], "little")
    return _end_of_caf(source) if head[:4] == b"caff" else 0


def _end_of_caf(source: bytes | Path) -> int:
    """Byte at which the audio of a CAF file ends according to its chunks; 0 if unknown."""
    position = 8
    while len(chunk := read_bytes(source, 12, position)) == 12:
        size = int.from_bytes(chunk[4:], "big", signed=True)
        if chunk[:4] == b"data" or size < 0:
            return max(0, position + 12 + size)
        position += 12 + size
    return 0


def has_trailing_data(source: bytes | Path) -> bool:
    """Whether a file has more data than its first header describes: joined files, or a wrong length. Only for formats
    that declare their length."""
    head, size = read_bytes(source), size_in_bytes(source)
    if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
        return _data_after_chunks(source, size)
    if head[4:8] == b"ftyp":
        return sum(name == b"moov" for name in _mp4_boxes(source, size)) > 1
    return head[:4] != b"RIFF" and 12 < _declared_size(source) < size - MAX_TRAILING_BYTES


def _data_after_chunks(source: bytes | Path, size: int) -> bool:
    """Whether a WAV file continues after its last chunk, or has a second RIFF header."""
    position = 12
    while len(chunk := read_bytes(source, 8, position)) == 8:
        if not (chunk[:4].isascii() and chunk[:4].decode().isprintable()):
            break
        name, length = chunk[:4], int.from_bytes(chunk[4:], "little")
        if name == b"RIFF":
            return True
        if name == b"data" and (length == 0 or position + 8 + length > size):
            return False  # unknown length, or truncated: all data is decoded
        position += 8 + length + length % 2
    return size - position > MAX_TRAILING_BYTES


def _mp4_boxes(source: bytes | Path, size: int) -> Iterator[bytes]:
    """Names of the boxes at the top of an MP4 file."""
    position = 0
    while len(box := read_bytes(source, 16, position)) >= 8:
        length = int.from_bytes(box[:4], "big")
        length = int.from_bytes(box[8:], "big") if length == 1 else length or size - position
        if length < 8:
            return
        yield box[4:8]
        position += length


def infinite_if_truncated(source: bytes | Path, declared: Seconds | None) -> Seconds | None:
    """The declared length; infinity for an Ogg file that ends inside a page, because its real length is unknown."""
    if read_bytes(source)[:4] != b"OggS":
        return declared
    if isinstance(source, bytes):
        tail = source[-_MAX_OGG_PAGE:]
    else:
        with source.open("rb") as file:
            file.seek(max(0, size_in_bytes(source) - _MAX_OGG_PAGE))
            tail = file.read()
    position = tail.rfind(b"OggS")
    header = tail[position : position + 27]
    if position < 0 or len(header) < 27:
        return float("inf")
    sizes = tail[position + 27 : position + 27 + header[26]]
    is_whole = len(sizes) == header[26] and len(tail) - position >= 27 + header[26] + sum(sizes)
    return declared if is_whole else float("inf")
