"""Folders that stages write: they appear whole, and nobody else's folder is ever replaced."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from caspi.errors import UsageError

REPORT = "report.json"


def claim(folder: Path, stage: str) -> None:
    """Raises UsageError where `folder` holds something that `stage` did not make."""
    if folder.is_file():
        raise UsageError(f"{folder} is a file: give a folder")
    if folder.is_dir() and any(folder.iterdir()) and stage_of(folder) != stage:
        raise UsageError(f"{folder} is not empty and no caspi {stage} made it: give another folder")


def stage_of(folder: Path) -> str | None:
    """The stage that made a folder, by its report; None where there is none."""
    try:
        content = json.loads((folder / REPORT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content.get("stage") if isinstance(content, dict) else None


def start(folder: Path, stage: str) -> Path:
    """An empty folder beside `folder` to write into. Raises UsageError as `claim` does."""
    claim(folder, stage)
    partial = _partial(folder)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    return partial


def resume(folder: Path, stage: str) -> Path:
    """As `start`, but what an earlier run left there stays."""
    claim(folder, stage)
    partial = _partial(folder)
    partial.mkdir(parents=True, exist_ok=True)
    return partial


def _partial(folder: Path) -> Path:
    return folder.with_name(folder.name + ".partial")


def finish(partial: Path, folder: Path) -> None:
    """Puts a finished folder in the place of an earlier one of the same stage."""
    if folder.exists():
        shutil.rmtree(folder)
    partial.rename(folder)


def read_jsonl(path: Path) -> list[Any]:
    """One JSON value a line. Lines end at a newline only: a transcript may hold U+2028, which splitlines cuts at.

    Raises UsageError naming file and line.
    """
    values = []
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
        if line.strip():
            try:
                values.append(json.loads(line))
            except ValueError as error:
                raise UsageError(f"{path}, line {number} is not JSON ({error}): was the file cut off?") from error
    return values
