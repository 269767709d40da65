"""caspi parity: whether a model gives the same text in every program that uses it."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from caspi import atomic_output
from caspi.commands.evaluate import open_set
from caspi.commands.outcome import Outcome, split_option
from caspi.errors import UsageError
from caspi.reporting import report
from caspi.reporting.wording import percent, rate

if TYPE_CHECKING:
    from caspi.parity.backends import Backend
    from caspi.parity.compare import ParityResult

_log = logging.getLogger(__name__)

BACKENDS = ("engine", "engine-plain", "transformers", "int8", "qwen-asr", "vllm")


def run(
    model: str,
    corpus: str,
    out: Path,
    *,
    clips: int = 50,
    backends: Sequence[str] = BACKENDS[:3],
    limit: float = 0.001,
    split: str = "test",
    pythons: dict[str, Path | None] | None = None,
) -> Outcome:
    """Compares backends and writes the report; exit code 1 if one differs by more than the limit. pythons: of the
    environments of qwen-asr and vllm."""
    from caspi.model.loading import load_processor
    from caspi.parity.clips import chosen
    from caspi.parity.compare import compare
    from caspi.parity.page import headline, parity_page

    atomic_output.check_owned(out, "parity")
    if unknown := [name for name in backends if name not in BACKENDS]:
        raise UsageError(f"--backends {unknown[0]}: not one of {', '.join(BACKENDS)}")
    if len(set(backends)) < 2:
        raise UsageError("--backends: name two or more; the others are compared with the first")
    with tempfile.TemporaryDirectory(prefix="caspi-parity-") as folder:
        made = [_backend(name, model, Path(folder), pythons or {}) for name in dict.fromkeys(backends)]
        load_processor(model)  # an invalid model is reported before anything is decoded
        found = chosen(open_set(corpus, split_option(split)), clips)
        result = compare(found, made, limit)
    page = parity_page(f"caspi parity · {model}", result, found[0].language)
    summary = {"stage": "parity", "model": model, "corpus": corpus, "split": split, **result.as_json()}
    path = report.write_report(out, page, summary)
    for one in result.failed:
        _log.warning(f"{one.name} failed: {one.error}")
    return Outcome(
        headline(result), path, summary, 1 if result.outside or result.failed else 0, tables=(_table(result),)
    )


def _backend(name: str, model: str, folder: Path, pythons: dict[str, Path | None]) -> Backend:
    from caspi.parity import backends
    from caspi.parity.other_programs import other_program

    here: dict[str, Callable[[], Backend]] = {
        "engine": lambda: backends.engine(model),
        "engine-plain": lambda: backends.plain_engine(model),
        "transformers": lambda: backends.transformers(model),
        "int8": lambda: backends.eight_bit_engine(model, folder / "int8"),
    }
    if name in here:
        return here[name]()
    python = pythons.get(name)
    if python is None:
        raise UsageError(f"--backends {name}: give --{name}-python, the python of an environment with {name}")
    return other_program(name, python, model)


def _table(result: ParityResult) -> Table:
    from caspi.parity.page import signed

    table = Table()
    for name in ("backend", "WER [95 %]", "difference", "words apart", "same text"):
        table.add_column(name, no_wrap=True)
    for one in result.backends:
        if one.score is None:
            table.add_row(one.name, "failed")
            continue
        same = f"{result.clips - len(one.different):,} of {result.clips:,}"
        table.add_row(one.name, rate(one.score.wer, one.score.wer_ci), signed(one), percent(one.apart), same)
    return table
