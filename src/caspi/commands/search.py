"""caspi search: tries values of a recipe's keys, ends early what is worse, and writes the best as a recipe."""

from __future__ import annotations

import importlib.util
import json
import logging
import shutil
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from caspi import recipe as recipes
from caspi.atomic_output import default_output, write_whole
from caspi.commands import prepare
from caspi.commands.outcome import Outcome
from caspi.errors import CaspiError, MissingDependency, UsageError
from caspi.interrupts import Interrupted, Interruption
from caspi.progress import duration
from caspi.recipe import Recipe
from caspi.reporting import report
from caspi.reporting.charts import Bar, Bars, Chart, Line
from caspi.reporting.parallel import Axis, Parallel
from caspi.reporting.report import Page, Table
from caspi.reporting.wording import percent, plural, rate

if TYPE_CHECKING:
    from collections.abc import Iterable

    from optuna.trial import FrozenTrial

    from caspi.search.space import Space, Value
    from caspi.search.study import Study

_log = logging.getLogger(__name__)

BEST = "best.yaml"
_SEARCH = "search.json"  # what the folder's search is of
_EVALUATIONS = 9  # in a run, so that it can be ended at the rungs
_LOOK_SECONDS = 0.2


def run(recipe: Recipe, space_file: Path, count: int, workers: int, out: Path | None) -> Outcome:
    """Searches until `count` runs have ended, or goes on with a search; writes its page and the best recipe."""
    if importlib.util.find_spec("optuna") is None:
        raise MissingDependency("caspi search", package="optuna", extra="search")
    from caspi.search.space import Space
    from caspi.search.study import Study

    train = recipe.require_train()
    folder = out or default_output(train.path.parent, "search")
    space = recipes.load_as(Space, space_file, "space")
    prepare.run(recipe)
    base = _with_evaluations(recipe)
    _check(base, space)
    _claim(folder, base, space)
    (folder / report.RECIPE).write_text(recipes.dump(base), encoding="utf-8")
    study = Study(folder, space, recipe.seed)
    own = space.own(base.model_dump(mode="json"))
    if own is None:
        _log.info("the recipe's own values are not all in the space: the search begins with others")
    else:
        study.begin_with(own)
    if left := study.reclaim():
        _log.info(f"going on with {plural(left, 'run')} that did not end")
    began = time.monotonic()
    _work(study, folder, count, workers, train.stages[-1].name)
    return _outcome(recipe, space, study, folder, time.monotonic() - began)


def _with_evaluations(recipe: Recipe) -> Recipe:
    """The recipe with enough evaluations to end runs early, and without what a search does not need."""
    from caspi.training.planning.plan import PlanOptions, plan_run

    config = recipe.require_train()
    [planned] = plan_run(recipe.model, config, recipe.corpus.path, recipe.seed, PlanOptions())
    every = max(1, planned.stages[-1].batches.steps // _EVALUATIONS)
    if every < config.evaluate.every:
        _log.info(f"evaluations every {every} steps instead of {config.evaluate.every}, to end runs early")
    evaluate = config.evaluate.model_copy(update={"every": min(every, config.evaluate.every), "keep": 1})
    changes = {"evaluate": evaluate, "track": (), "hub": None}
    return recipe.model_copy(update={"train": config.model_copy(update=changes)})


def _claim(folder: Path, base: Recipe, space: Space) -> None:
    """Raises UsageError if the folder holds something else than this search."""
    marker = folder / _SEARCH
    identity = {"space": space.model_dump(mode="json"), "recipe": base.model_dump(mode="json")}
    if marker.is_file():
        if json.loads(marker.read_text(encoding="utf-8")) != identity:
            raise UsageError(f"{folder} holds a search of another recipe or space: give another --out")
        return
    if folder.is_dir() and any(folder.iterdir()):
        raise UsageError(f"{folder} is not empty and no caspi search made it: give another --out")
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(marker, json.dumps(identity, ensure_ascii=False, indent=1))


def _check(base: Recipe, space: Space) -> None:
    """Raises UsageError, with all of them, for keys and values that the recipe does not accept, or that are not of
    training: a corpus is prepared once."""
    from caspi.search.space import overrides

    problems = []
    with tempfile.TemporaryDirectory(prefix="caspi-") as folder:
        file = Path(folder) / report.RECIPE
        file.write_text(recipes.dump(base), encoding="utf-8")
        for key, parameter in space.parameters.items():
            if key.split(".")[0] not in ("train", "model") or key == "train.path":
                problems.append(f"{key}: only keys of train and model can be searched")
                continue
            for value in parameter.choices or (parameter.low, parameter.high):
                assert value is not None
                given = int(value) if parameter.integer else value
                try:
                    recipes.load(file, overrides({key: given}))
                except UsageError as error:
                    problems.append(f"{key}={value}: {str(error).partition(': ')[2]}")
                    break
    if problems:
        raise UsageError(f"space: {'; '.join(problems)}")


def _recipe_of(search: Path, folder: Path, values: dict[str, Value]) -> Recipe:
    """The recipe of one run. Raises UsageError."""
    from caspi.search.space import overrides

    return recipes.load(search / report.RECIPE, (*overrides(values), f"train.path={json.dumps(str(folder / 'train'))}"))


def _work(study: Study, folder: Path, count: int, workers: int, stage: str) -> None:
    """Lets the workers do all runs. Raises Interrupted where the search was asked to end."""
    import torch

    from caspi.search.worker import Work, Worker
    from caspi.training.run import METRICS

    def write(run_folder: Path, values: dict[str, Value]) -> tuple[Path, Path]:
        made = _recipe_of(folder, run_folder, values)
        path = run_folder / report.RECIPE
        path.write_text(recipes.dump(made), encoding="utf-8")
        return path, run_folder / "train" / METRICS

    interruption, ending = Interruption(), threading.Event()
    gpus = torch.cuda.device_count()
    work = Work(study, count, stage, write, lambda: _drop_weights(study))
    with interruption.listening(), ThreadPoolExecutor(workers) as pool:
        running = [
            pool.submit(Worker(work, number % gpus if gpus > 1 else None, ending).run) for number in range(workers)
        ]
        while not all(one.done() for one in running):
            if interruption.requested or any(one.done() and one.exception() for one in running):
                ending.set()
            time.sleep(_LOOK_SECONDS)
    if interruption.requested:
        raise Interrupted("the search was saved: the same command resumes")
    for one in running:
        one.result()


def _drop_weights(study: Study) -> None:
    """Only the best run keeps its weights: those of all would fill the disk."""
    from optuna.trial import TrialState

    ended = study.trials(
        TrialState.COMPLETE, TrialState.PRUNED
    )  # read once: a run that ends meanwhile is not among them
    finished = [trial for trial in ended if trial.state == TrialState.COMPLETE]
    best = study.folder_of(min(finished, key=lambda trial: trial.value or 0.0)) if finished else None
    for trial in ended:
        folder = study.folder_of(trial)
        if folder != best:
            for checkpoint in folder.glob("train/*/checkpoint-*"):
                shutil.rmtree(checkpoint, ignore_errors=True)


def _outcome(recipe: Recipe, space: Space, study: Study, folder: Path, seconds: float) -> Outcome:
    from optuna.trial import TrialState

    from caspi.search.study import reached_of

    ranked = study.ranked()
    if not ranked:
        raise CaspiError(f"no run ended well: look at {folder}/run-*/log.txt")
    best = ranked[0]
    reached = reached_of(best)
    assert reached is not None
    winner = _recipe_of(folder, folder / "run", best.params)
    config = winner.require_train().model_copy(update={
        "path": recipe.require_train().path, "evaluate": recipe.require_train().evaluate,
        "track": recipe.require_train().track, "hub": recipe.require_train().hub,
    })  # fmt: skip
    write_whole(folder / BEST, recipes.dump(winner.model_copy(update={"train": config})))
    pruned = study.trials(TrialState.PRUNED)
    line = (
        f"WER {rate(reached.wer, reached.interval)} in validation, run {best.number} of {len(ranked) + len(pruned)} "
        f"({len(pruned)} ended early): {folder / BEST}"
    )
    summary: dict[str, Any] = {
        "stage": "search", "name": recipe.name, "best": best.params, "best_run": best.number, "wer": reached.wer,
        "wer_ci": reached.interval, "recipe": str(folder / BEST), "importance": _importance(study),
        "runs": [_run_json(trial) for trial in [*ranked, *pruned, *study.failed()]],
    }  # fmt: skip
    page = report.write_report(folder, _page(recipe.name, space, study, seconds, summary), summary, None)
    return Outcome(line, page, summary)


def _run_json(trial: FrozenTrial) -> dict[str, Any]:
    from caspi.search.study import reached_of

    reached = reached_of(trial)
    return {
        "run": trial.number, "values": trial.params, "state": trial.state.name.lower(),
        "wer": reached.wer if reached else None, "reason": trial.user_attrs.get("reason"),
        "progress": trial.user_attrs.get("progress", 1.0 if reached else None),
    }  # fmt: skip


def _importance(study: Study) -> dict[str, float]:
    """Share of each key in what makes runs good (Watanabe et al. 2023, arXiv:2304.10255); empty with too few runs."""
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    if len(study.ranked()) < 5:
        return {}
    try:
        return dict(get_param_importances(study.study, evaluator=PedAnovaImportanceEvaluator()))
    except (ValueError, RuntimeError):  # all runs are equally good
        return {}


def _page(name: str, space: Space, study: Study, seconds: float, summary: dict[str, Any]) -> Page:
    from caspi.search.halving import P_WORSE, is_worse
    from caspi.search.study import reached_of

    ranked = study.ranked()
    best = reached_of(ranked[0])
    assert best is not None
    others = {trial.number: found for trial in ranked[1:] if (found := reached_of(trial)) is not None}
    p_worse = {number: is_worse(found, best) for number, found in others.items()}
    alike = sum(p >= P_WORSE for p in p_worse.values())
    pruned = [one for one in summary["runs"] if one["state"] == "pruned"]
    return Page(
        title=f"caspi search · {name}",
        headline=f"WER {rate(best.wer, best.interval)} in validation: run {ranked[0].number}",
        facts=[
            ("runs to the end", f"{len(ranked)}"),
            ("ended early", f"{len(pruned)}"),
            ("failed", f"{sum(one['state'] == 'fail' for one in summary['runs'])}"),
            ("not told from the best", f"{alike}"),
            ("time of this session", duration(seconds)),
        ],
        parts=[
            _best(ranked[0].params),
            _parallel(space, study, ranked[0].number),
            *_importance_bars(summary["importance"]),
            _progress(study),
            _runs(summary["runs"], p_worse),
        ],
    )  # fmt: skip


def _best(values: dict[str, Any]) -> Table:
    rows = [(key, _value(value)) for key, value in values.items()]
    return Table("The best values", ("key", "value"), rows, note=f"{BEST} is the recipe with them.")


def _short_names(keys: Iterable[str]) -> list[str]:
    """The shortest ends of keys that tell them apart."""
    parts = [key.split(".") for key in keys]
    names = []
    for own in parts:
        count = 1
        while sum(other[-count:] == own[-count:] for other in parts) > 1:
            count += 1
        names.append(".".join(own[-count:]))
    return names


def _value(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _parallel(space: Space, study: Study, best: int) -> Parallel:
    from optuna.trial import TrialState

    trials = study.trials(TrialState.COMPLETE, TrialState.PRUNED)
    axes = [
        Axis(name, [trial.params[key] for trial in trials], parameter.log)
        for name, (key, parameter) in zip(_short_names(space.parameters), space.parameters.items(), strict=True)
    ]
    return Parallel(
        "Values of the runs", axes, [trial.number for trial in trials].index(best),
        frozenset(number for number, trial in enumerate(trials) if trial.state == TrialState.PRUNED),
        note="A line is a run; the best one is thick, those that were ended early are grey.",
    )  # fmt: skip


def _importance_bars(importance: dict[str, float]) -> list[Bars]:
    if not importance:
        return []
    note = "Share of each key in what tells good runs from all (PED-ANOVA); with few runs this is a hint."
    named = zip(_short_names(importance), importance.values(), strict=True)
    return [Bars("Importance", [Bar(name, value) for name, value in named], note)]


def _progress(study: Study) -> Chart:
    """The best WER so far, by the number of runs."""
    from caspi.search.study import reached_of

    points, best = [], float("inf")
    for trial in sorted(study.ranked(), key=lambda trial: trial.number):
        reached = reached_of(trial)
        assert reached is not None
        best = min(best, 100 * reached.wer)
        points.append((float(trial.number), best))
    return Chart("The best so far", [Line("WER", points, dots=True)], "run", "WER %")


def _runs(runs: list[dict[str, Any]], p_worse: dict[int, float]) -> Table:
    keys = list(runs[0]["values"])
    words = {"complete": "to the end", "pruned": "ended early", "fail": "failed"}
    rows = [
        (
            one["run"], words[one["state"]], percent(one["wer"]) if one["wer"] is not None else "-",
            f"{p_worse[one['run']]:.2g}" if one["run"] in p_worse else "-",
            f"{100 * one['progress']:.0f} %" if one["progress"] is not None else "-",
            *(_value(one["values"].get(key, "-")) for key in keys), one["reason"] or "",
        )
        for one in runs
    ]  # fmt: skip
    return Table(
        "Runs", ("run", "state", "WER", "p", "trained", *_short_names(keys), "reason"), rows,
        note="p: probability of errors that are at least as many more than those of the best run, if both were equally "
        "good (Wilcoxon, one-sided, the same utterances). Runs with p above 0.05 are not told from the best.",
    )  # fmt: skip
