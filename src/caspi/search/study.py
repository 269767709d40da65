"""The runs of a search, in an Optuna study on disk: several processes and machines that share the folder work on it."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import optuna
from optuna.samplers import TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState

from caspi.atomic_output import read_lines_so_far
from caspi.errors import CaspiError
from caspi.search.halving import Reached
from caspi.search.space import Space, Value

_STORAGE = "study.journal"
_STARTUP = 6  # runs with random values, before the sampler models what is good
_FAILURES = 3
_OF = "of"  # the attribute of a run that names the one whose folder it goes on with


class Study:
    """Runs are numbered from 0 in the order in which they begin."""

    def __init__(self, folder: Path, space: Space, seed: int) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._space = folder, space
        self._study = optuna.create_study(
            study_name="search",
            storage=JournalStorage(JournalFileBackend(str(folder / _STORAGE))),
            sampler=TPESampler(n_startup_trials=_STARTUP, multivariate=True, constant_liar=True, seed=seed),
            load_if_exists=True,
        )

    @property
    def study(self) -> optuna.Study:
        """Optuna's own."""
        return self._study

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False, states=states or None)

    def begin_with(self, values: dict[str, Value]) -> None:
        """The first run gets these values, unless there are runs already."""
        if not self.trials():
            self._study.enqueue_trial(values)

    def reclaim(self) -> int:
        """Runs that a process left when it ended are to be gone on with. Returns their number."""
        left = 0
        with self._alone():
            for trial in self.trials(TrialState.RUNNING):
                with contextlib.suppress(BlockingIOError), self._held(self.folder_of(trial)):
                    self._study.tell(trial.number, state=TrialState.FAIL)
                    self._study.enqueue_trial(trial.params, user_attrs={_OF: self.folder_of(trial).name})
                    left += 1
        return left

    @contextlib.contextmanager
    def next(self, count: int) -> Iterator[Trial | None]:
        """The next run, which is this process's inside of the block; None if `count` have ended or are running."""
        with contextlib.ExitStack() as stack:
            with self._alone():  # so that no other takes it, or counts at the same moment
                busy = self.trials(TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)
                trial = self._study.ask() if len(busy) + len(self.failed()) < count else None
                if trial is not None:
                    stack.enter_context(self._held(self.folder_of(trial)))
            yield trial

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Waits until no other worker is in such a block."""
        with (self._folder / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def values(self, trial: Trial) -> dict[str, Value]:
        return self._space.suggest(trial)

    def folder_of(self, trial: Trial | FrozenTrial) -> Path:
        """The folder of a run: that of the run that it goes on with, if there is one."""
        return self._folder / trial.user_attrs.get(_OF, f"run-{trial.number:03d}")

    @contextlib.contextmanager
    def _held(self, folder: Path) -> Iterator[None]:
        """Held while this process works on a run. Raises BlockingIOError if another process does."""
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "held").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield

    def add_reached(self, trial: Trial, rung: int, reached: Reached) -> None:
        """Records that a run is at a rung."""
        trial.set_user_attr(f"rung-{rung}", asdict(reached))

    def others_at(self, trial: Trial, rung: int) -> dict[int, Reached]:
        """Other runs that were at a rung before, by number."""
        return {
            other.number: found
            for other in self.trials(TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)
            if other.number != trial.number and (found := reached_of(other, rung)) is not None
        }

    def finish(self, trial: Trial, reached: Reached) -> None:
        """A run was trained to its end."""
        trial.set_user_attr("end", asdict(reached))
        self._study.tell(trial, objective(reached))

    def prune(self, trial: Trial, reached: Reached, progress: float, reason: str) -> None:
        """A run was ended early. Its value so far tells the sampler where not to look."""
        trial.set_user_attr("reason", reason)
        trial.set_user_attr("progress", progress)
        trial.report(objective(reached), step=int(1000 * progress))
        self._study.tell(trial, state=TrialState.PRUNED)

    def fail(self, trial: Trial, reason: str) -> None:
        """A run ended with an error, such as a loss that is not finite."""
        trial.set_user_attr("reason", reason)
        self._study.tell(trial, state=TrialState.FAIL)

    def failed(self) -> list[FrozenTrial]:
        """Runs that ended with an error; not those that another run goes on with."""
        return [trial for trial in self.trials(TrialState.FAIL) if "reason" in trial.user_attrs]

    def require_success(self) -> None:
        """Raises CaspiError if the first runs all failed: then it is not because of their values."""
        failed = self.failed()
        if len(failed) >= _FAILURES and not self.trials(TrialState.COMPLETE, TrialState.PRUNED):
            raise CaspiError(f"the first {len(failed)} runs failed: {failed[-1].user_attrs['reason']}")

    def ranked(self) -> list[FrozenTrial]:
        """Finished runs, the best first."""
        return sorted(self.trials(TrialState.COMPLETE), key=lambda trial: trial.value or 0.0)


_LOSS_WEIGHT = 1e-4  # the validation loss decides between runs with the same WER


def objective(reached: Reached) -> float:
    """What the sampler makes small."""
    return reached.wer + _LOSS_WEIGHT * reached.loss


def reached_of(trial: FrozenTrial, rung: int | None = None) -> Reached | None:
    """What a run reached at a rung, or at its end."""
    found: Any = trial.user_attrs.get("end" if rung is None else f"rung-{rung}")
    if found is None:
        return None
    errors, words, groups = (tuple(found[key]) for key in ("errors", "words", "groups"))
    return Reached(errors, words, groups, found["loss"])


def progress_lines(metrics: Path, stage: str) -> list[dict[str, Any]]:
    """The evaluations of a run's stage in its metrics, so far, with their progress, from 0 to 1."""
    return [
        line | {"progress": line["step"] / line["steps"]}
        for line in read_lines_so_far(metrics)
        if line["stage"] == stage and "utterances" in line
    ]
