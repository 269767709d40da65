"""Folders that stages write: they appear whole, and nobody else's folder is ever replaced."""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from caspi.errors import UsageError

REPORT = "report.json"


def check_owned(folder: Path, stage: str) -> None:
    """Raises UsageError where `folder` holds something that `stage` did not make."""
    if folder.is_file():
        raise UsageError(f"{folder} is a file: give a folder")
    if folder.is_dir() and any(folder.iterdir()) and stage_of(folder) != stage:
        raise UsageError(f"{folder} is not empty and no caspi {stage} made it: give another folder")


def stage_of(folder: Path) -> str | None:
    """The stage that made a folder, by its report; None where there is none."""
    return report_of(folder).get("stage")


def report_of(folder: Path) -> dict[str, Any]:
    """What a stage left of itself in a folder; nothing where there is no report that can be read."""
    try:
        content = json.loads((folder / REPORT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def begin_atomic(folder: Path, stage: str) -> Path:
    """An empty folder beside `folder` to write into. Raises UsageError as `claim` does."""
    _put_back(folder)
    check_owned(folder, stage)
    partial = _beside(folder, "partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    return partial


def commit_atomic(partial: Path, folder: Path) -> None:
    """Puts a finished folder in the place of an earlier one of the same stage. At no moment is there neither."""
    for path in partial.rglob("*"):
        sync_to_disk(path)  # a rename may reach the disk before what was renamed
    sync_to_disk(partial)
    replaced = _beside(folder, "replaced")
    if folder.exists():
        folder.rename(replaced)
    partial.rename(folder)
    sync_to_disk(folder.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def _put_back(folder: Path) -> None:
    """Undoes a `finish` that was killed between its two renames."""
    replaced = _beside(folder, "replaced")
    if replaced.exists() and not folder.exists():
        replaced.rename(folder)
    shutil.rmtree(replaced, ignore_errors=True)


def work_folder(folder: Path, stage: str) -> Path:
    """A folder beside `folder` for what is worth keeping when a run is killed. Raises UsageError as `claim` does."""
    _put_back(folder)
    check_owned(folder, stage)
    kept = _beside(folder, "work")
    kept.mkdir(parents=True, exist_ok=True)
    return kept


@contextlib.contextmanager
def locked(folder: Path, stage: str) -> Iterator[None]:
    """Raises UsageError where another process holds the same lock: two of a stage would write over each other."""
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UsageError(f"another caspi {stage} is at work in {folder}: wait for it, or stop it") from error
        yield


def write_whole(path: Path, text: str) -> None:
    """A text file that is there with all it says, or as it was before."""
    partial = _beside(path, "partial")
    partial.write_text(text, encoding="utf-8")
    sync_to_disk(partial)
    partial.replace(path)
    sync_to_disk(path.parent)


def delete_atomic(folder: Path) -> None:
    """Deletes a folder so that at no moment a part of it is seen under its name."""
    hidden = folder.with_name(f".{folder.name}.removed")
    shutil.rmtree(hidden, ignore_errors=True)
    folder.rename(hidden)
    shutil.rmtree(hidden, ignore_errors=True)


def sync_to_disk(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _beside(folder: Path, what: str) -> Path:
    if not folder.name:  # `.` and `/`
        raise UsageError(f"{folder} has no name of its own: give a folder to be made or replaced")
    return folder.with_name(f"{folder.name}.{what}")


def not_utf8(path: Path, error: UnicodeDecodeError) -> UsageError:
    """Which file it is, where in it, and what to do."""
    return UsageError(f"{path} is not UTF-8 ({error.reason} at byte {error.start}): save it as UTF-8")


def read_jsonl(path: Path) -> list[Any]:
    """One JSON value a line. Lines end at a newline only: a transcript may hold U+2028, which splitlines cuts at.

    Raises UsageError naming file and line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise not_utf8(path, error) from error
    values = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                values.append(json.loads(line))
            except ValueError as error:
                raise UsageError(f"{path}, line {number} is not JSON ({error}): was the file cut off?") from error
    return values


def finite(value: Any) -> Any:
    """With null for numbers that JSON does not have (NaN, infinity)."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
