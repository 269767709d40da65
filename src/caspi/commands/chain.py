"""Commands in a row: each is printed as a user would type it, recorded, and not run again once it is done."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from caspi.atomic_output import write_whole
from caspi.commands.outcome import Outcome
from caspi.errors import UsageError, first_line

STEPS = "steps.json"


@dataclass(frozen=True, slots=True)
class Step:
    """A command that ended. key: of everything it depends on. path: of its result. summary: what --json prints, without
    long lists. finished: seconds since 1970."""

    name: str
    key: str
    command: str
    seconds: float
    result: str
    path: str
    summary: dict[str, Any]
    exit_code: int
    finished: float


class Chain:
    """The steps of a run in its folder. A step whose key is recorded is skipped; the keys go on to those after it, so
    that a change runs everything after it again."""

    def __init__(self, folder: Path, name: str) -> None:
        self._file, self._name = folder / STEPS, name
        self._key = ""
        self._known = {step.name: step for step in read_steps(folder, name)}
        self.taken: list[Step] = []
        self.outcomes: dict[str, Outcome] = {}  # of the steps that this process ran

    def forget_from(self, name: str, order: Sequence[str]) -> None:
        """The steps from this one on are run again."""
        for later in order[order.index(name) :]:
            self._known.pop(later, None)

    def run(
        self, name: str, command: str, inputs: object, work: Callable[[], Outcome], *, always: bool = False
    ) -> Step:
        """inputs: what the step depends on beside the steps before it. always: it knows itself what is done."""
        self._key = hashlib.sha256(json.dumps([self._key, name, inputs], default=str).encode()).hexdigest()[:16]
        known = self._known.get(name)
        if known is not None and known.key == self._key and not known.exit_code and not always:
            print(f"\n$ {command}\n{known.result}  (done before)", file=sys.stderr, flush=True)
            self.taken.append(known)
            return known
        print(f"\n$ {command}", file=sys.stderr, flush=True)
        self._write(name)
        began = time.monotonic()
        try:
            self.outcomes[name] = outcome = work()
        except BaseException as error:
            self._write(None, f"{name}: {first_line(error)}")
            raise
        step = Step(
            name, self._key, command, time.monotonic() - began, outcome.line, str(outcome.path),
            _short(outcome.summary), outcome.exit_code, time.time(),
        )  # fmt: skip
        print(f"{step.result}  ({step.seconds:.0f} s)", file=sys.stderr, flush=True)
        self._known[name] = step
        self.taken.append(step)
        self._write(None)
        return step

    def _write(self, running: str | None, failed: str = "") -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        steps = [asdict(step) for step in self._known.values()]
        content = {
            "name": self._name, "running": running, "since": time.time(), "failed": failed, "process": os.getpid(),
            "machine": platform.node(), "steps": steps,
        }  # fmt: skip
        write_whole(self._file, json.dumps(content, ensure_ascii=False, indent=1))


def read_steps(folder: Path, name: str | None = None) -> list[Step]:
    """The steps recorded in a run's folder; none if there is no run. Raises UsageError for a run of another name."""
    content = read_state(folder)
    if not content:
        return []
    if name is not None and content["name"] != name:
        raise UsageError(f"{folder} holds the run {content['name']!r}, not {name!r}: give train.path another folder")
    return steps_of(content)


def steps_of(state: dict[str, Any]) -> list[Step]:
    """The steps in what `read_state` returns."""
    return [Step(**step) for step in state["steps"]]


def read_state(folder: Path) -> dict[str, Any]:
    """The content of a run's file of steps; empty if there is none. Raises UsageError if it is damaged."""
    try:
        content = json.loads((folder / STEPS).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise UsageError(f"{folder / STEPS} is damaged: remove it, and the run's steps are checked anew") from error
    return dict(content)


_MOST_ENTRIES = 50


def _short(summary: dict[str, Any]) -> dict[str, Any]:
    return {
        key: value
        for key, value in summary.items()
        if not isinstance(value, list | dict) or len(value) <= _MOST_ENTRIES
    }
