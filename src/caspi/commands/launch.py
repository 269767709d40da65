"""caspi launch: puts `caspi run` on a rented machine, with the launcher that the user has."""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from caspi import recipe as recipes
from caspi.bucket import Bucket
from caspi.commands import plan
from caspi.commands.outcome import Outcome
from caspi.errors import DISTRIBUTION, CaspiError, UsageError
from caspi.launching import dstack, hf_jobs, skypilot, slurm
from caspi.launching.job import Job
from caspi.recipe import Recipe

if TYPE_CHECKING:
    from caspi.training.planning.assumed import AssumedCorpus
    from caspi.training.planning.plan import RunPlan


class _Launcher(NamedTuple):
    file: str
    client: str
    task: Callable[[Job], str]
    submit: Callable[[Job, str], Sequence[str]]
    package: str


LAUNCHERS = {
    "skypilot": _Launcher(skypilot.FILE, skypilot.CLIENT, skypilot.task, skypilot.submit, "pip install skypilot"),
    "dstack": _Launcher(dstack.FILE, dstack.CLIENT, dstack.task, dstack.submit, "pip install dstack"),
    "hf-jobs": _Launcher(hf_jobs.FILE, hf_jobs.CLIENT, hf_jobs.task, hf_jobs.submit, "pip install huggingface_hub"),
    "slurm": _Launcher(slurm.FILE, slurm.CLIENT, slurm.task, slurm.submit, "use a machine of the cluster"),
}
# By the kind of bucket: the package that opens it, and the environment variables that let the job write there.
_BUCKETS: dict[str, tuple[str, tuple[str, ...]]] = {
    "s3": ("s3fs", ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")),
    "gs": ("gcsfs", ()),  # by the service account of the machine: a file of keys would have to be brought there
    "az": ("adlfs", ("AZURE_STORAGE_CONNECTION_STRING",)),
    "hf": ("", ("HF_TOKEN",)),
}
_IF_SET = {"s3": ("AWS_SESSION_TOKEN", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL")}
# The longest a job may take: without a prediction; the predicted hours of training times the margin, and time for all
# other steps.
_MOST_HOURS, _MARGIN, _OTHER_STEPS_HOURS = 24, 2, 4


@dataclass(frozen=True, slots=True)
class LaunchOptions:
    """on: of LAUNCHERS. bucket: where the run is kept. gpu, count, spot: the machine. secrets: further ones, by name.
    install: a command; None: from the repository and commit that this caspi was installed from. out: a folder for the
    task file. options: further ones of caspi run. table: of further GPU kinds. assumed: instead of a corpus, to predict
    the cost."""

    on: str
    bucket: str
    gpu: str
    count: int = 1
    spot: bool = False
    secrets: tuple[str, ...] = ()
    install: str | None = None
    out: Path = Path()
    dry_run: bool = False
    options: tuple[str, ...] = ()
    table: Path | None = None
    assumed: AssumedCorpus | None = None


def run(recipe: Recipe, options: LaunchOptions) -> Outcome:
    """Writes the task file, says what the job costs, and starts it. Raises UsageError, CaspiError."""
    from caspi.training.planning.estimates import gpus

    if options.on not in LAUNCHERS:
        raise UsageError(f"--on {options.on}: not one of {', '.join(LAUNCHERS)}")
    if options.gpu not in gpus(options.table):
        raise UsageError(f"--gpu {options.gpu}: not one of {', '.join(gpus(options.table))}")
    launcher = LAUNCHERS[options.on]
    _require_relative(recipe)
    if options.on != "slurm" and ("://" not in options.bucket or options.bucket.startswith("file:")):
        raise UsageError(
            f"--bucket {options.bucket} is lost with the machine: give an address such as s3://mine/round1"
        )
    planned = _planned(recipe, options)
    hours = _MOST_HOURS
    if planned is not None and planned.hours is not None:
        hours = _OTHER_STEPS_HOURS + math.ceil(_MARGIN * planned.hours)
    made = job(recipe, options, hours)
    path = options.out / f"{made.name}.{launcher.file}"
    try:
        path.write_text(launcher.task(made), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path} cannot be written ({error.strerror}): give another --out") from error
    command = launcher.submit(made, str(path))
    summary: dict[str, Any] = {
        "stage": "launch", "on": options.on, "file": str(path), "command": list(command), "name": made.name,
        "secrets": list(made.secrets), "plan": planned.as_json() if planned else None, "submitted": not options.dry_run,
    }  # fmt: skip
    most = f"{hours} h, {hours * _price(options) * options.count:.0f} $"
    line = (
        f"{made.name} on {options.count} x {options.gpu}: {cost_words(planned, options)}; a machine runs at most {most}"
    )
    if options.dry_run:
        return Outcome(f"{line}; to start it: {' '.join(command)}", path, summary)
    _require_corpus(recipe, options.bucket)
    _submit(command, launcher)
    return Outcome(f"{line}; started with {options.on}", path, summary)


def job(recipe: Recipe, options: LaunchOptions, hours: int) -> Job:
    """What the launchers put into their files."""
    kind = options.bucket.partition("://")[0]
    package, secrets = _BUCKETS.get(kind, ("", ()))
    install = options.install or _install_command(package)
    also = [name for name in _IF_SET.get(kind, ()) if name in os.environ]
    hub = ["HF_TOKEN"] if _needs_the_hub(recipe) else []
    named = tuple(dict.fromkeys((*secrets, *also, *hub, *options.secrets)))
    return Job(
        recipe.name, recipes.dump(recipe), ("--bucket", options.bucket, *options.options), options.gpu, options.count,
        options.spot, named, install, hours,
    )  # fmt: skip


def cost_words(planned: RunPlan | None, options: LaunchOptions) -> str:
    """Hours and dollars, or the price of an hour if they are not known."""
    if planned is None or planned.hours is None or planned.cost is None:
        return f"{_price(options) * options.count:.2f} $ an hour; how many is not known without a corpus (--hours)"
    if options.spot and planned.spot is not None:
        return f"training about {planned.spot.hours:.1f} h, {planned.spot.cost:.2f} $ on spot machines"
    return f"training about {planned.hours:.1f} h, {planned.cost:.2f} $"


def _price(options: LaunchOptions) -> float:
    """Of one GPU, dollars an hour."""
    from caspi.training.planning.estimates import gpus

    kind = gpus(options.table)[options.gpu]
    return kind.spot if options.spot and kind.spot is not None else kind.price


def _needs_the_hub(recipe: Recipe) -> bool:
    """Whether data or weights are from the Hub."""
    start = recipe.model.start
    return any(one.kind == "huggingface" for one in recipe.corpus.sources) or (
        "/" in start and not Path(start).exists() and not start.startswith((".", "/"))
    )


_EXTRAS = "demo,hub,vad"


def _install_command(package: str) -> str:
    """From the repository and commit that this caspi was installed from (PEP 610). Raises UsageError if it was
    installed from a folder, which another machine does not have."""
    try:
        text = importlib.metadata.distribution(DISTRIBUTION).read_text("direct_url.json") or "{}"
    except importlib.metadata.PackageNotFoundError:
        text = "{}"
    origin = json.loads(text)
    if "vcs_info" not in origin:
        raise UsageError(
            "this caspi was installed from a folder: say how the machine installs it, such as --install "
            f"\"pip install 'caspi-asr[{_EXTRAS}] @ git+https://HOST/REPOSITORY@COMMIT' {package}\""
        )
    address = f"{origin['vcs_info']['vcs']}+{origin['url']}@{origin['vcs_info']['commit_id']}"
    return " ".join([f"pip install 'caspi-asr[{_EXTRAS}] @ {address}'", *([package] if package else [])])


def _planned(recipe: Recipe, options: LaunchOptions) -> RunPlan | None:
    """The plan for the machine; None if there is neither a corpus nor a number of hours. Raises UsageError for what
    does not fit."""
    from caspi.training.planning.plan import Machine, PlanOptions, plan_run

    corpus = recipe.corpus.path
    if options.assumed is None and not any(corpus.glob("train-*.arrow")):
        return None
    on = PlanOptions((Machine(options.gpu, options.count),), table=options.table, assumed=options.assumed)
    [made] = plan_run(recipe.model, recipe.require_train(), corpus, recipe.seed, on)
    if made.fits is False:
        raise UsageError(f"{options.count} x {options.gpu}: {plan.plan_line(made, '')}")
    return made


def _require_relative(recipe: Recipe) -> None:
    for key, path in (("corpus.path", recipe.corpus.path), ("train.path", recipe.require_train().path)):
        if path.is_absolute():
            raise UsageError(f"{key} {path} is a path of this machine: give one like runs/{recipe.name}/...")


def _require_corpus(recipe: Recipe, bucket: str) -> None:
    """Raises UsageError if the data are on this machine and not in the bucket."""
    local = [source for source in recipe.corpus.sources if getattr(source, "path", None) is not None]
    if local and not Bucket(bucket, {}, Path(tempfile.gettempdir())).holds_a_run():
        raise UsageError(
            f"the recordings are on this machine: first caspi run RECIPE --until audit --bucket {bucket}, which puts "
            "the corpus there"
        )


def _submit(command: Sequence[str], launcher: _Launcher) -> None:
    if shutil.which(launcher.client) is None:
        raise UsageError(
            f"{launcher.client} is not installed ({launcher.package}); the task file is written: --dry-run"
        )
    if (code := subprocess.run(command, check=False).returncode) != 0:  # noqa: S603 - a launcher that the user asked for
        raise CaspiError(f"{' '.join(command)} ended with exit code {code}: see above")
