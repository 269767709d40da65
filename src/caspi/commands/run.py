"""caspi run: from the sources of a recipe to an evaluated model, in one command that resumes."""

from __future__ import annotations

import contextlib
import logging
import os
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from caspi import recipe as recipes
from caspi.atomic_output import REPORT, default_output, read_lines_so_far, report_of, write_whole
from caspi.audit.audit import AuditConfig
from caspi.bucket import Bucket, kept_in_bucket
from caspi.commands import audit, average, compare, evaluate, export, plan, prepare, publish, train
from caspi.commands.chain import STEPS, Chain, read_state, steps_of
from caspi.commands.outcome import Outcome
from caspi.commands.run_page import COMPARISON, EVALUATION, START, parent_of, run_page
from caspi.errors import CaspiError, UsageError
from caspi.evaluation.options import EvaluationOptions
from caspi.hub import CARD
from caspi.interrupts import Interrupted, ended_by_sigterm
from caspi.progress import duration
from caspi.recipe import Recipe
from caspi.reporting import report
from caspi.reporting.wording import percent

if TYPE_CHECKING:
    from caspi.training.config import TrainConfig

_log = logging.getLogger(__name__)

ORDER = ("prepare", "audit", "plan", "train", "average", "evaluate", "compare", "export", "publish")
_ALIGNERS = {"Hebrew": "tiny-aligner"}
_EXPORT, _RESOLVED = "export", "recipe-resolved.yaml"


@dataclass(frozen=True, slots=True)
class RunOptions:
    """first, last: steps of ORDER. aligner: for the audit; None: the one of the language, if there is one. budget: in
    dollars, of training. parent: the run that this one is compared with; None: see parent_of. export: a format of caspi
    export, or None. publish: a repository, or None. retention: corpora of other languages. stress: utterances
    of the stress set. bucket: an address where the
    run is kept, so that another machine can go on."""

    first: str | None = None
    last: str | None = None
    aligner: str | None = None
    audit: bool = True
    budget: float | None = None
    parent: Path | None = None
    export: str | None = "hf"
    publish: str | None = None
    retention: tuple[str, ...] = ()
    stress: int = 100
    bucket: str | None = None


def run(recipe: Recipe, file: str, options: RunOptions) -> RunOutcome:
    """Runs what is not done yet, and writes the page of the run. file: the recipe with its overrides, as in commands.
    Raises UsageError, and Interrupted where the run was asked to end: the same command resumes."""
    for given, flag in ((options.first, "--from"), (options.last, "--until")):
        if given is not None and given not in ORDER:
            raise UsageError(f"{flag} {given}: not one of {', '.join(ORDER)}")
    parent_of(recipe, recipe.require_train().path.parent, options.parent)
    if recipe.model.task != "transcribe":
        raise UsageError(f"{file} trains an aligner: caspi run is for recognisers; use caspi prepare, train and align")
    try:
        with ended_by_sigterm(), _kept(recipe, options.bucket):
            return _steps(recipe, file, options)
    except Interrupted as error:
        raise Interrupted(f"{error}; caspi run {file} resumes") from error


def _steps(recipe: Recipe, file: str, options: RunOptions) -> RunOutcome:
    folder = recipe.require_train().path.parent
    chain = Chain(folder, recipe.name)
    if options.first is not None:
        chain.forget_from(options.first, ORDER)
    this = _Run(recipe, file, options, folder, chain)
    for name in ORDER[: ORDER.index(options.last) + 1] if options.last else ORDER:
        if (stopped := this.step(name)) is not None:
            return this.outcome(stopped)
        this.write_page(f"done: {name}")
    return this.outcome(None)


def _kept(recipe: Recipe, bucket: str | None) -> contextlib.AbstractContextManager[None]:
    """What a run writes, kept in a bucket if there is one; nothing else of these folders is touched."""
    if bucket is None:
        return contextlib.nullcontext()
    trained, corpus = recipe.require_train().path, recipe.corpus.path
    folder = trained.parent
    names = (STEPS, report.HTML, REPORT, report.RECIPE, _RESOLVED, EVALUATION, START, COMPARISON, _EXPORT)
    places = {name: folder / name for name in names} | {"train": trained, "corpus": corpus}
    places |= {f"corpus-{what}": default_output(corpus, what) for what in ("audit", "plan")}
    return kept_in_bucket(Bucket(bucket, places, folder))


@dataclass(frozen=True, slots=True)
class RunOutcome(Outcome):
    """of_steps: the outcomes of the steps that this process ran, by name."""

    of_steps: dict[str, Outcome] = field(default_factory=dict)


class _Run:
    """A run: its steps, by name."""

    def __init__(self, recipe: Recipe, file: str, options: RunOptions, folder: Path, chain: Chain) -> None:
        self._recipe, self._file, self._options, self._folder, self._chain = recipe, file, options, folder, chain
        self._parent = parent_of(recipe, folder, options.parent)
        self._steps: dict[str, Callable[[], str | None]] = {
            "prepare": self._prepare, "audit": self._audit, "plan": self._plan, "train": self._train,
            "average": self._average, "evaluate": self._evaluate, "compare": self._compare, "export": self._export,
            "publish": self._publish,
        }  # fmt: skip

    @property
    def _corpus(self) -> Path:
        return self._recipe.corpus.path

    @property
    def _content(self) -> list[str]:
        """Fingerprints of the corpus's splits, which stay the same where prepare makes the same corpus again."""
        return [split["fingerprint"] for split in report_of(self._corpus)["splits"].values()]

    @property
    def _config(self) -> TrainConfig:
        return self._recipe.require_train()

    @property
    def _best(self) -> Path:
        return self._config.path / "best"

    def step(self, name: str) -> str | None:
        """Runs a step. Returns the reason if the run must stop after it, else None."""
        return self._steps[name]()

    def write_page(self, headline: str) -> None:
        """The page of the run so far, without a report: it is not done."""
        if self._chain.taken:
            content = run_page(self._recipe, self._folder, self._chain.taken, headline, self._parent)
            write_whole(self._folder / report.HTML, report.render(content, {"environment": report.environment()}))

    def outcome(self, stopped: str | None) -> RunOutcome:
        """Of the run so far. stopped: why it did not go on."""
        steps = self._chain.taken
        summary = {
            "stage": "run", "name": self._recipe.name, "steps": [asdict(step) for step in steps], "stopped": stopped,
            "best": str(self._best) if self._best.exists() else None,
            "parent": str(self._parent) if self._parent else None,
        }  # fmt: skip
        line = stopped or next((s.result for s in reversed(steps) if s.name == "evaluate"), steps[-1].result)
        page = report.write_report(
            self._folder, run_page(self._recipe, self._folder, steps, line, self._parent), summary,
            recipes.dump(self._recipe),
        )  # fmt: skip
        return RunOutcome(line, page, summary, 3 if stopped else 0, of_steps=self._chain.outcomes)

    # --- steps

    def _prepare(self) -> None:
        inputs = [self._recipe.corpus.model_dump(mode="json"), self._recipe.language]
        self._chain.run(
            "prepare", f"caspi prepare {self._file}", inputs, lambda: prepare.run(self._recipe),
            always=self._options.bucket is None,  # another machine may not have the sources
        )  # fmt: skip

        splits = report_of(self._corpus).get("splits", {})
        if not splits.get("validation", {}).get("utterances"):
            raise UsageError(
                f"{self._corpus} has no validation data, by which checkpoints are chosen: more speakers are needed, or "
                "larger shares or another seed in corpus.splits"
            )

    def _audit(self) -> str | None:
        aligner = self._options.aligner or _ALIGNERS.get(self._recipe.language)
        if not self._options.audit:
            return None
        if aligner is None:
            _log.warning(f"no audit: caspi has no aligner for {self._recipe.language} (--aligner MODEL)")
            return None
        command = f"caspi audit {self._corpus} --aligner {aligner}"
        inputs = [self._content, aligner]
        step = self._chain.run(
            "audit", command, inputs, lambda: audit.run(self._corpus, aligner, [], None, AuditConfig())
        )
        if not step.exit_code:
            return None
        return (
            f"the audit says STOP ({step.result}): look at {step.path}, mend with caspi repair {self._corpus} --from "
            f"{Path(step.path).parent}, or go on as it is with --no-audit"
        )

    def _plan(self) -> str | None:
        from caspi.training.planning.plan import Machine, PlanOptions

        gpu, count = _gpus()
        kind = f" --gpu {gpu} --gpus {count}" if gpu else ""
        inputs = [self._recipe.model_dump(mode="json"), self._content, gpu, count]
        step = self._chain.run(
            "plan", f"caspi plan {self._file}{kind}", inputs,
            lambda: plan.run(self._recipe, PlanOptions((Machine(gpu, count),))),
        )  # fmt: skip
        planned = report_of(Path(step.path).parent)
        unfit = [stage["name"] for stage in planned.get("stages", ()) if stage.get("fits") is False]
        if unfit:
            return f"{', '.join(unfit)} would not fit into the memory of {count} x {gpu}: {step.result}"
        costs = [stage.get("cost") for stage in planned.get("stages", ())]
        budget = self._options.budget
        if budget is not None and None in costs:
            return f"--budget {budget:g}: what training costs on this machine is not known (caspi plan --gpu KIND)"
        if budget is not None and (cost := sum(costs)) > budget:
            return f"training would cost about {cost:.2f} $, more than --budget {budget:g}"
        return None

    def _train(self) -> None:
        _, count = _gpus()
        self._chain.run("train", f"caspi train {self._file}", count > 1, lambda: self._trained(count))

    def _trained(self, count: int) -> Outcome:
        """In this process, or in one for each GPU."""
        from caspi.training.distributed.launch import launch

        if count <= 1:
            return train.run(self._recipe)
        resolved = self._folder / _RESOLVED
        resolved.write_text(recipes.dump(self._recipe), encoding="utf-8")
        code = launch(["train", str(resolved)], count)
        if code == Interrupted.exit_code:
            raise Interrupted("training was saved")
        if code:
            raise CaspiError(f"training ended with exit code {code}: see above")
        summary = report_of(self._config.path)
        return Outcome(f"trained on {count} GPUs", self._config.path / report.HTML, summary)

    def _average(self) -> None:
        top = self._config.evaluate.keep
        last = Path(report_of(self._config.path)["stages"][-1]["path"])
        if top < 2 or sum(1 for _ in last.glob("checkpoint-*")) < 2:
            return
        self._chain.run(
            "average",
            f"caspi average {self._config.path} --top {top}",
            top,
            lambda: average.run(self._config.path, top),
        )

    def _evaluate(self) -> None:
        if not any(self._corpus.glob("test-*.arrow")):
            _log.warning(f"no evaluation: {self._corpus} has no test data (corpus.splits)")
            return
        out, start = self._folder / EVALUATION, self._recipe.model.start
        options = EvaluationOptions(stress=self._options.stress, retention=self._options.retention)
        others = "".join(f" --retention {one}" for one in self._options.retention)
        if self._recipe.model.init != "random":
            before = self._folder / START
            self._chain.run(
                "evaluate-start", f"caspi evaluate {start} {self._corpus}{others} --out {before}",
                [start, self._options.retention],
                lambda: evaluate.run(
                    start, [str(self._corpus)], before, EvaluationOptions(retention=self._options.retention)
                ),
            )  # fmt: skip
        self._chain.run(
            "evaluate", f"caspi evaluate {self._best} {self._corpus} --stress {options.stress}{others} --out {out}",
            [report.fingerprint(self._best), asdict(options)],
            lambda: evaluate.run(str(self._best), [str(self._corpus)], out, options),
        )  # fmt: skip

    def _compare(self) -> None:
        parent = self._parent
        if parent is None or not all((run / EVALUATION).is_dir() for run in (self._folder, parent)):
            return
        mine, theirs, out = self._folder / EVALUATION, parent / EVALUATION, self._folder / COMPARISON
        command = f"caspi compare {theirs} {mine} --out {out}"
        try:
            self._chain.run("compare", command, str(parent), lambda: compare.run(theirs, mine, out))
        except UsageError as error:
            if self._options.parent is not None:
                raise
            _log.warning(f"not compared with {parent}: {error}")  # of other test data, say

    def _export(self) -> None:
        to = self._options.export
        if to is None:
            return
        out = self._folder / _EXPORT
        self._chain.run(
            "export", f"caspi export {self._best} --to {to} --out {out}", [report.fingerprint(self._best), to],
            lambda: self._exported(to, out),
        )  # fmt: skip

    def _exported(self, to: str, out: Path) -> Outcome:
        """With what the evaluation found on its card."""
        from caspi.export.evaluated_card import read_summary, with_evaluations

        outcome = export.run(str(self._best), to, out)
        card, evaluation = out / CARD, self._folder / EVALUATION
        if card.is_file() and evaluation.is_dir():
            text = with_evaluations(card.read_text(encoding="utf-8"), [read_summary(evaluation)])
            write_whole(card, text)
        return outcome

    def _publish(self) -> None:
        repository = self._options.publish
        if repository is None:
            return
        evaluations = [one for one in (self._folder / EVALUATION,) if one.is_dir()]
        self._chain.run(
            "publish", f"caspi publish {self._best} {repository}", repository,
            lambda: publish.run(str(self._best), repository, False, evaluations=evaluations),
        )  # fmt: skip


def _gpus() -> tuple[str | None, int]:
    """The kind of this machine's GPUs, if the table has it, and how many there are; 1 without a GPU."""
    import torch

    from caspi.training.planning.estimates import gpus, recognised

    if not torch.cuda.is_available():
        return None, 1
    known = gpus(None)
    found = recognised(torch.cuda.get_device_name(), known)
    kind = next((name for name, gpu in known.items() if gpu is found), None)
    return kind, torch.cuda.device_count()


def status(folder: Path) -> Outcome:
    """Where a run is: what is done, what is running, how far training is."""
    state = read_state(folder)
    if not state:
        raise UsageError(f"{folder} is no run: give the folder that caspi run writes to, such as runs/NAME")
    steps = steps_of(state)
    lines = [f"{step.name}: {step.result} ({duration(step.seconds)})" for step in steps]
    running = state.get("running")
    training = _training(folder) if running == "train" else ""
    if running and not _is_alive(state):
        line = f"stopped in: {running}{training}; the same command resumes"
    elif running:
        line = f"running: {running}{training}"
    elif state.get("failed"):
        line = f"failed in {state['failed']}"
    else:
        line = f"not running; last: {steps[-1].name if steps else 'nothing'}"
    summary = {**state, "training": training}
    return Outcome(line, Path(), summary, tables=tuple(lines))


def _is_alive(state: dict[str, Any]) -> bool:
    """Whether the process that wrote a run's state still runs; taken for true if it is of another machine."""
    if state.get("machine") != platform.node():
        return True
    try:
        os.kill(int(state.get("process", 0)), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _training(folder: Path) -> str:
    """How far training is, by its metrics."""
    from caspi.training.run import METRICS

    found = sorted(folder.glob(f"*/{METRICS}"))
    rows = read_lines_so_far(found[-1]) if found else []
    if not rows:
        return ""
    said = f", stage {rows[-1]['stage']}, step {rows[-1]['step']:,} of {rows[-1].get('steps', 0):,}"
    if speed := next((row for row in reversed(rows) if "seconds_left" in row), None):
        said += f", {speed['audio_seconds_per_second']:.0f} s of audio per second"
        said += f", {duration(speed['seconds_left'])} left in the stage"
    if scored := next((row for row in reversed(rows) if "eval_wer" in row), None):
        said += f", validation WER {percent(scored['eval_wer'])} at step {scored['step']:,}"
    return said
