"""The length that a file declares, against the bytes it has, without decoding."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from caspi.audio.base import Seconds
from caspi.audio.raw_bytes import read_bytes, size_in_bytes

UNACCOUNTED = 4096  # bytes that may follow the chunks of a WAV file: tags of other formats, padding
_OGG_PAGE = 27 + 255 + 255 * 255  # bytes, at most (RFC 3533, section 6)


def no_audio_at_all(head: bytes) -> str:
    """What a failed download left instead of audio; "" if it is not such a file."""
    if head.startswith(b"version https://git-lfs"):
        return "a git-lfs pointer, not the file: git lfs pull"
    if head.lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return "an HTML page, not audio: the download failed"
    return ""


def times_as_long(source: bytes | Path) -> float:
    """Ratio of the declared to the real size, at least 1, of a WAV, AVI, Wave64 or CAF file: decoders use the real
    size. 1 for others, and for streams of unknown length, as pipes write them."""
    head, says = read_bytes(source), _claimed_bytes(source)
    is_stream = head[:4] == b"RIFF" and says >= 0x7FFFFFFF
    return 1.0 if is_stream or says >= 1 << 62 or head[:4] == b"FORM" else max(1.0, says / size_in_bytes(source))


def _claimed_bytes(source: bytes | Path) -> int:
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
    """Byte at which the audio of a CAF file ends, by its chunks; 0 if they do not tell."""
    at = 8
    while len(chunk := read_bytes(source, 12, at)) == 12:
        size = int.from_bytes(chunk[4:], "big", signed=True)
        if chunk[:4] == b"data" or size < 0:
            return max(0, at + 12 + size)
        at += 12 + size
    return 0


def more_follows(source: bytes | Path) -> bool:
    """Whether a file has more data than its first header describes: joined files, or a wrong length. Only for formats
    that declare their length."""
    head, size = read_bytes(source), size_in_bytes(source)
    if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
        return _behind_chunks(source, size)
    if head[4:8] == b"ftyp":
        return sum(name == b"moov" for name in _mp4_boxes(source, size)) > 1
    return head[:4] != b"RIFF" and 12 < _claimed_bytes(source) < size - UNACCOUNTED


def _behind_chunks(source: bytes | Path, size: int) -> bool:
    at = 12
    while len(chunk := read_bytes(source, 8, at)) == 8 and chunk[:4].isascii() and chunk[:4].decode().isprintable():
        name, length = chunk[:4], int.from_bytes(chunk[4:], "little")
        if name == b"RIFF":
            return True
        if name == b"data" and (length == 0 or at + 8 + length > size):
            return False  # unknown length, or truncated: all data is decoded
        at += 8 + length + length % 2
    return size - at > UNACCOUNTED


def _mp4_boxes(source: bytes | Path, size: int) -> Iterator[bytes]:
    """Names of the boxes at the top of an MP4 file."""
    at = 0
    while len(box := read_bytes(source, 16, at)) >= 8:
        length = int.from_bytes(box[:4], "big")
        length = int.from_bytes(box[8:], "big") if length == 1 else length or size - at
        if length < 8:
            return
        yield box[4:8]
        at += length


def if_cut_off(source: bytes | Path, declared: Seconds | None) -> Seconds | None:
    """The declared length; infinity for an Ogg file that ends inside a page, because its real length is unknown."""
    if read_bytes(source)[:4] != b"OggS":
        return declared
    if isinstance(source, bytes):
        tail = source[-_OGG_PAGE:]
    else:
        with source.open("rb") as file:
            file.seek(max(0, size_in_bytes(source) - _OGG_PAGE))
            tail = file.read()
    at = tail.rfind(b"OggS")
    header = tail[at : at + 27]
    if at < 0 or len(header) < 27:
        return float("inf")
    sizes = tail[at + 27 : at + 27 + header[26]]
    is_whole = len(sizes) == header[26] and len(tail) - at >= 27 + header[26] + sum(sizes)
    return declared if is_whole else float("inf")
