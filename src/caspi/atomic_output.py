"""Output folders of stages: written atomically, and never replace a folder that caspi did not make."""

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
    """Raises UsageError if `folder` has content that `stage` did not make."""
    if folder.is_file():
        raise UsageError(f"{folder} is a file: give a folder")
    if folder.is_dir() and any(folder.iterdir()) and stage_of(folder) != stage:
        raise UsageError(f"{folder} is not empty and no caspi {stage} made it: give another folder")


def stage_of(folder: Path) -> str | None:
    """The stage that made a folder, by its report; None if there is no report."""
    return report_of(folder).get("stage")


def report_of(folder: Path) -> dict[str, Any]:
    """The report of a stage in a folder; empty if there is no readable report."""
    try:
        content = json.loads((folder / REPORT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def default_output(source: Path, what: str) -> Path:
    """The folder of a stage beside its input: `corpus-audit`; also where the input is `.`."""
    named = source if source.name else source.resolve()
    return named.with_name(f"{named.name}-{what}")


def begin_atomic(folder: Path, stage: str) -> Path:
    """An empty folder beside `folder` to write into. Raises UsageError as `check_owned` does."""
    _put_back(folder)
    check_owned(folder, stage)
    partial = _beside(folder, "partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    return partial


def commit_atomic(partial: Path, folder: Path) -> None:
    """Replaces an earlier folder of the same stage by a finished one. At any moment, one of the two exists on disk."""
    for path in partial.rglob("*"):
        sync_to_disk(path)  # otherwise the rename may reach the disk before the data
    sync_to_disk(partial)
    replaced = _beside(folder, "replaced")
    if folder.exists():
        folder.rename(replaced)
    partial.rename(folder)
    sync_to_disk(folder.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def _put_back(folder: Path) -> None:
    """Undoes a `commit_atomic` that was killed between its two renames."""
    replaced = _beside(folder, "replaced")
    if replaced.exists() and not folder.exists():
        replaced.rename(folder)
    shutil.rmtree(replaced, ignore_errors=True)


def work_folder(folder: Path, stage: str) -> Path:
    """A folder beside `folder` for data needed to resume a killed run. Raises UsageError as `check_owned` does."""
    _put_back(folder)
    check_owned(folder, stage)
    kept = _beside(folder, "work")
    kept.mkdir(parents=True, exist_ok=True)
    return kept


@contextlib.contextmanager
def locked(folder: Path, stage: str) -> Iterator[None]:
    """Raises UsageError if another process has the same lock: two runs of a stage would overwrite each other."""
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UsageError(f"another caspi {stage} is running in {folder}: wait for it, or stop it") from error
        yield


def write_whole(path: Path, text: str) -> None:
    """Writes a text file atomically: afterwards it is either complete or unchanged."""
    partial = _beside(path, "partial")
    partial.write_text(text, encoding="utf-8")
    sync_to_disk(partial)
    partial.replace(path)
    sync_to_disk(path.parent)


def delete_atomic(folder: Path) -> None:
    """Deletes a folder so that a partly deleted folder never has its name."""
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
        raise UsageError(f"{folder} has no name of its own: give a folder to create or replace")
    return folder.with_name(f"{folder.name}.{what}")


def not_utf8(path: Path, error: UnicodeDecodeError) -> UsageError:
    """An error that names the file, the position, and the fix."""
    return UsageError(f"{path} is not UTF-8 ({error.reason} at byte {error.start}): save it as UTF-8")


def read_jsonl(path: Path) -> list[Any]:
    """One JSON value per line. Lines end only at a newline: a transcript may contain U+2028, where splitlines splits.

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


def read_whole_lines(path: Path) -> list[Any]:
    """The complete lines of a JSONL file that a process appends to; none if there is no file. A last line that was cut
    off by a kill is dropped, and removed from the file too."""
    if not path.is_file():
        return []
    data = path.read_bytes()
    if not data.endswith(b"\n"):
        path.write_bytes(data[: data.rfind(b"\n") + 1])
    return read_jsonl(path)


def read_lines_so_far(path: Path) -> list[Any]:
    """The complete lines of a JSONL file that another process appends to; none if there is no file. The file stays as
    it is."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in text.split("\n")[:-1]]  # the last one may be half written


def finite(value: Any) -> Any:
    """Replaces non-finite numbers (NaN, infinity), which JSON does not have, by null."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
