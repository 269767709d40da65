"""caspi average --with: models between a run's model and the one before training, to keep what that one knew
(Wortsman et al. 2022, arXiv:2109.01903)."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from caspi import atomic_output
from caspi import recipe as recipes
from caspi.commands.outcome import Outcome
from caspi.errors import UsageError
from caspi.reporting import report
from caspi.reporting.charts import Chart, Line
from caspi.reporting.report import Page, Table
from caspi.reporting.wording import percent

if TYPE_CHECKING:
    from caspi.corpus.store import Corpus
    from caspi.corpus.utterance import Split
    from caspi.recipe import Recipe
    from caspi.training.results import Measurement

_log = logging.getLogger(__name__)

DEFAULT_ALPHAS = ("0", "0.5", "0.7", "0.8", "0.9", "0.95", "1")
_OUT = "interpolated"


@dataclass(frozen=True, slots=True)
class Alpha:
    """The share of the trained weights: of all groups, and of some that differ."""

    share: float
    groups: Mapping[str, float]

    @classmethod
    def read(cls, text: str) -> Alpha:
        """`0.9`, or `0.9,embeddings=1,decoder_layers=0.8`. Raises UsageError."""
        from caspi.model.config import GROUP_NAMES

        first, *rest = text.split(",")
        try:
            share = float(first)
            groups = {name: float(value) for name, _, value in (part.partition("=") for part in rest)}
        except ValueError as error:
            raise UsageError(f"--alpha {text}: give a share such as 0.9, or 0.9,embeddings=1") from error
        if unknown := set(groups) - set(GROUP_NAMES):
            raise UsageError(f"--alpha {text}: {', '.join(sorted(unknown))} is not one of {', '.join(GROUP_NAMES)}")
        if not all(0 <= value <= 1 for value in (share, *groups.values())):
            raise UsageError(f"--alpha {text}: a share is between 0 and 1")
        return cls(share, groups)

    def __str__(self) -> str:
        return ", ".join([f"{self.share:g}", *(f"{name} {value:g}" for name, value in self.groups.items())])


@dataclass(frozen=True, slots=True)
class Point:
    """A model between the two. wer: of the language that was trained, in validation; others: of other languages."""

    alpha: Alpha
    wer: float
    others: Mapping[str, float]

    def forgetting(self, before: Point) -> float:
        """Mean relative increase of the WER of other languages."""
        rises = [(wer - before.others[name]) / max(1e-9, before.others[name]) for name, wer in self.others.items()]
        return sum(rises) / len(rises) if rises else 0.0


def run(run: Path, before: str, alphas: Sequence[str], retention: Sequence[str], most: float) -> Outcome:
    """Measures models between `before` and the run's best one, and writes the one with the lowest WER whose forgetting
    is at most `most`. retention: corpora of other languages. Raises UsageError."""
    from caspi.model.loading import resolve
    from caspi.training.checkpoint import files as checkpoints

    if atomic_output.stage_of(run) != "train":
        raise UsageError(f"{run} is not a finished run: caspi train makes one")
    if not retention:
        raise UsageError("--with needs --retention CORPUS: without other languages, nothing tells what was kept")
    recipe = recipes.load(run / report.RECIPE)
    if recipe.model.task != "transcribe":
        raise UsageError(f"{run} is of an aligner: --with is for recognisers")
    best, start = (run / checkpoints.BEST).resolve(), Path(resolve(before))
    read = [Alpha.read(text) for text in alphas or DEFAULT_ALPHAS]
    ends = [Alpha(0.0, {}), Alpha(1.0, {})]
    read = sorted([*ends, *(one for one in read if one not in ends)], key=lambda one: one.share)
    partial = atomic_output.begin_atomic(run / _OUT, "interpolate")
    measure = _Measure(recipe, Path(atomic_output.report_of(run)["corpus"]), retention)
    points = []
    for alpha in read:
        points.append(measure.at(alpha, best, start, partial / "tried"))
        _log.info(
            f"alpha {alpha}: WER {percent(points[-1].wer)}, forgetting {percent(points[-1].forgetting(points[0]))}"
        )
    chosen = choose(points, most)
    if chosen is not None:
        _write(chosen.alpha, best, start, partial)
    summary: dict[str, Any] = {
        "stage": "interpolate", "run": str(run), "before": before, "max_forgetting": most,
        "alpha": str(chosen.alpha) if chosen else None,
        "points": [
            {"alpha": str(p.alpha), "wer": p.wer, "others": dict(p.others), "forgetting": p.forgetting(points[0])}
            for p in points
        ],
    }  # fmt: skip
    report.write_report(partial, _page(run, points, chosen, most), summary)
    atomic_output.commit_atomic(partial, run / _OUT)
    return Outcome(_line(points, chosen, most), run / _OUT / ("" if chosen else report.HTML), summary)


def choose(points: Sequence[Point], most: float) -> Point | None:
    """The point with the lowest WER among those that forget at most `most`; None if only the first is, which was not
    trained."""
    kept = [point for point in points[1:] if point.forgetting(points[0]) <= most]
    return min(kept, key=lambda point: point.wer, default=None)


def _line(points: Sequence[Point], chosen: Point | None, most: float) -> str:
    trained = points[-1]
    as_trained = f"as trained WER {percent(trained.wer)}, forgetting {percent(trained.forgetting(points[0]))}"
    if chosen is None:
        return (
            f"no model between the two forgets at most {percent(most)}; {as_trained}. To keep other languages, train "
            "with data of theirs (train.mixes)"
        )
    kept = chosen.forgetting(points[0])
    return f"alpha {chosen.alpha}: WER {percent(chosen.wer)}, forgetting {percent(kept)}; {as_trained}; in validation"


class _Measure:
    """Measures models as in-training evaluation does, on the run's validation data and on other languages'."""

    def __init__(self, recipe: Recipe, corpus: Path, retention: Sequence[str]) -> None:
        from caspi.corpus.store import Corpus

        self._recipe = recipe
        self._held_out = Corpus.open(corpus, "validation")
        self._others = [_held_out(Path(path)) for path in retention]

    def at(self, alpha: Alpha, after: Path, before: Path, folder: Path) -> Point:
        from caspi.model.config import ModelConfig
        from caspi.model.loading import load
        from caspi.training.distributed.processes import processes

        _write(alpha, after, before, folder)
        loaded = load(ModelConfig(start=str(folder)), processes().device)
        mine = self._measured(loaded, self._held_out)
        others: dict[str, float] = {}
        for corpus in self._others:
            found = self._measured(loaded, corpus)
            others |= found.by_language or {corpus.utterance(0).language: found.wer}
        shutil.rmtree(folder)
        return Point(alpha, mine.wer, others)

    def _measured(self, loaded: Any, corpus: Corpus) -> Measurement:
        from caspi.training.distributed.processes import compute_dtype, processes
        from caspi.training.results import Measurement
        from caspi.training.validation import Validation

        config = self._recipe.require_train()
        dtype = compute_dtype(config.precision, processes().device)
        measured = Validation(corpus, loaded.prompt, config, dtype, self._recipe.language)(loaded)
        assert isinstance(measured, Measurement)  # nothing stops it
        return measured


def _held_out(folder: Path) -> Corpus:
    """Its validation data, or its test data if it has no other."""
    from caspi.corpus.store import Corpus

    split: Split = "validation" if any(folder.glob("validation-*.arrow")) else "test"
    if split == "test":
        _log.warning(f"{folder} has no validation data: the point is chosen on its test data")
    return Corpus.open(folder, split)


def _write(alpha: Alpha, after: Path, before: Path, out: Path) -> None:
    from caspi.training.checkpoint.averaging import interpolate

    out.mkdir(parents=True, exist_ok=True)
    interpolate(after, before, alpha.share, alpha.groups, out)


def _page(run: Path, points: Sequence[Point], chosen: Point | None, most: float) -> Page:
    before = points[0]
    names = list(before.others)
    rows = [
        (
            str(point.alpha), percent(point.wer), *(percent(point.others[name]) for name in names),
            percent(point.forgetting(before)), "chosen" if point is chosen else "",
        )
        for point in points
    ]  # fmt: skip
    curves = [Line("trained language", [(point.alpha.share, 100 * point.wer) for point in points], dots=True)]
    mean = [(point.alpha.share, 100 * sum(point.others.values()) / len(names)) for point in points]
    return Page(
        title=f"caspi average --with · {run.parent.name}",
        headline=_line(points, chosen, most),
        facts=[
            ("WER before training", percent(before.wer)),
            ("WER as trained", percent(points[-1].wer)),
            ("forgetting as trained", percent(points[-1].forgetting(before))),
            ("most forgetting allowed", percent(most)),
        ],
        parts=[
            Chart(
                "WER between the two models", [*curves, Line("mean of other languages", mean, dots=True)],
                "alpha: share of the trained weights", "%",
            ),
            Table(
                "Points", ("alpha", "WER", *names, "forgetting", ""), rows,
                note="In validation, as during training. Forgetting: mean relative rise of the WER of other languages.",
            ),
        ],
    )  # fmt: skip
