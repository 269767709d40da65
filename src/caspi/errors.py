"""Errors that a user can fix: one line with the problem, its place, and what to do."""

from __future__ import annotations

import functools
import importlib.metadata

DISTRIBUTION = "caspi-asr"  # the name on PyPI; the name caspi belongs to another project


class CaspiError(Exception):
    """Something failed; the command ends with exit code 1 and this one line."""

    exit_code = 1


def first_line(error: BaseException) -> str:
    """The message of an error in one line; its class name if the message is empty."""
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)


class UsageError(CaspiError):
    """A recipe, an argument or an input is invalid; exit code 2."""

    exit_code = 2


def install(extra: str) -> str:
    """The command that installs the packages of an extra, the same for a checkout and a wheel."""
    try:
        requirements = importlib.metadata.requires(DISTRIBUTION) or ()
    except importlib.metadata.PackageNotFoundError:  # run from a source checkout, not installed
        return f"pip install what the extra {extra} of pyproject.toml lists"
    marked = f'extra == "{extra}"'
    names = [one.split(";")[0].strip() for one in requirements if marked in one.replace("'", '"')]
    return "pip install " + " ".join(f"'{name}'" for name in names)


class MissingDependency(CaspiError):
    """An optional package is not installed."""

    def __init__(self, purpose: str, *, package: str, extra: str) -> None:
        super().__init__(f"{purpose} needs the package {package}: {install(extra)}")
        self._parts = (purpose, package, extra)

    def __reduce__(self) -> tuple[object, ...]:
        """Errors are pickled between processes; by default, pickle does not keep keyword-only arguments."""
        purpose, package, extra = self._parts
        return functools.partial(MissingDependency, purpose, package=package, extra=extra), ()
