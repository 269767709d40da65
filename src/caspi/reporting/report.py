"""Writes the report of a stage: report.json for programs and report.html for people."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import platform
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from caspi.atomic_output import REPORT, finite, write_whole
from caspi.errors import DISTRIBUTION
from caspi.reporting.charts import Bars, Chart, draw
from caspi.reporting.parallel import Parallel, draw_parallel
from caspi.reporting.waveform import WaveformCell, embedded_audio
from caspi.reporting.wording import rate

HTML = "report.html"
RECIPE = "recipe.yaml"
_LIBRARIES = ("caspi", "torch", "transformers", "accelerate", "tokenizers", "numpy", "pyarrow", "av", "jiwer")


@dataclass(frozen=True, slots=True)
class AudioCell:
    """A cell with an audio player; the audio is embedded in the page."""

    flac: bytes

    @property
    def source(self) -> str:
        return embedded_audio(self.flac)


@dataclass(frozen=True, slots=True)
class DifferenceCell:
    """A reference and a hypothesis, aligned by word. steps: (kind, expected, said), as from scoring.edits.align.
    direction: rtl or ltr, from the language, because a Hebrew text may begin with a Latin word."""

    steps: tuple[tuple[str, str, str], ...]
    direction: str


LISTED = 5_000  # rows of a browser whose content is also in a file: a page of all would be slow


@dataclass(frozen=True, slots=True)
class Browser:
    """A table of any length: the page shows fifty rows at a time, and sorts and searches all. text: as in Table."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str | int | float]]
    text: tuple[int, ...] = ()
    note: str = ""

    @property
    def json(self) -> Markup:
        """The rows as JSON, escaped so that a text cannot close the script element."""
        return Markup(json.dumps(self.rows, ensure_ascii=False).replace("<", "\\u003c"))  # noqa: S704


@dataclass(frozen=True, slots=True)
class Table:
    """text: indices of the columns with transcripts, which are shown in the direction of their script. A click on a
    column's name sorts the table; a long table has a filter."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]
    text: tuple[int, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """headline: the result in one line. facts: the main numbers. parts: in reading order. refresh: seconds after which
    a browser loads it again."""

    title: str
    headline: str
    facts: list[tuple[str, str]]
    parts: Sequence[Table | Chart | Parallel | Bars | Browser]
    synthetic: str = ""
    refresh: int | None = None


def environment() -> dict[str, Any]:
    """Date, code revision, library versions and machine."""
    return {
        "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "revision": revision(),
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {_processor()}",
        "libraries": {name: installed_version(name) for name in _LIBRARIES},
    }


def installed_version(name: str = "caspi") -> str:
    """The version of a library; "not installed" for caspi in a checkout that was not installed."""
    try:
        return importlib.metadata.version(DISTRIBUTION if name == "caspi" else name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or "unknown processor"


@functools.cache
def revision() -> str:
    """The commit of the source tree, with a note if there are uncommitted changes; else the installed version."""
    where = Path(__file__).parents[1]
    try:
        run = functools.partial(subprocess.run, cwd=where, capture_output=True, text=True, check=True, timeout=10)
        commit = run(["git", "rev-parse", "--short=12", "HEAD"]).stdout.strip()
        changed = run(["git", "status", "--porcelain", "--untracked-files=no", "."]).stdout.strip()
        return f"{commit}{' with uncommitted changes' if changed else ''}"
    except (OSError, subprocess.SubprocessError):
        return f"installed {installed_version('caspi')}"


def fingerprint(path: Path) -> str:
    """SHA-256 of a file, of the weights in a folder of a model or of adapters, or of the report in any other folder."""
    if path.is_dir():
        weights = sorted([*path.glob("model*.safetensors"), *path.glob("adapter_model.safetensors")])
        if weights:
            return hashlib.sha256("".join(map(fingerprint, weights)).encode()).hexdigest()
        path = path / REPORT
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def write_report(folder: Path, page: Page, content: dict[str, Any], recipe: str | None = None) -> Path:
    """Writes report.json, report.html and the resolved recipe into `folder`; returns the page's path."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {**content, "environment": environment()}
    if recipe is not None:
        (folder / RECIPE).write_text(recipe, encoding="utf-8")
        content["recipe"] = recipe
    text = json.dumps(finite(content), ensure_ascii=False, indent=1, default=str, allow_nan=False)
    write_whole(folder / REPORT, text)
    write_whole(folder / HTML, render(page, content))
    return folder / HTML


def render(page: Page, content: dict[str, Any]) -> str:
    """Self-contained HTML that loads nothing from the network; a script sorts and filters tables."""
    templates = Environment(
        loader=PackageLoader("caspi"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    templates.filters["svg"] = lambda part: draw_parallel(part) if isinstance(part, Parallel) else draw(part)
    templates.filters["rate"] = rate
    templates.tests["clip"] = lambda cell: isinstance(cell, AudioCell)
    templates.tests["waveform"] = lambda cell: isinstance(cell, WaveformCell)
    templates.tests["difference"] = lambda cell: isinstance(cell, DifferenceCell)
    templates.tests["chart"] = lambda part: isinstance(part, Chart | Parallel)
    templates.tests["browser"] = lambda part: isinstance(part, Browser)
    templates.tests["bars"] = lambda part: isinstance(part, Bars)
    return templates.get_template("report.html.j2").render(
        page=page, environment=content["environment"], recipe=content.get("recipe")
    )
