"""Size and bytes of a file that is on disk or already in memory."""

from __future__ import annotations

from pathlib import Path

from caspi.audio.base import AudioError


def size_in_bytes(source: bytes | Path) -> int:
    """Size in bytes. Raises AudioError if the file does not exist."""
    if isinstance(source, bytes):
        return len(source)
    try:
        if source.is_dir():
            raise AudioError("missing_audio", f"a folder: {source}")
        return source.stat().st_size
    except (OSError, ValueError) as error:  # no such file, an invalid name, or no permission
        hint = " (%20 and the like belong to URLs: write the real file name)" if "%" in source.name else ""
        raise AudioError("missing_audio", f"{getattr(error, 'strerror', None) or error}: {source}{hint}") from error


def read_bytes(source: bytes | Path, count: int = 12, start: int = 0) -> bytes:
    if isinstance(source, bytes):
        return source[start : start + count]
    with source.open("rb") as file:
        file.seek(start)
        return file.read(count)
