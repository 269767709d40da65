"""Errors a user can act on: one line that says what is wrong, where, and what to do."""

from __future__ import annotations

import functools
import importlib.metadata

DISTRIBUTION = "caspi-asr"  # as it is installed; caspi is somebody else's


class CaspiError(Exception):
    """Something failed; the command ends with exit code 1 and this one line."""

    exit_code = 1


def first_line(error: BaseException) -> str:
    """What an error says, in one line; its name where it says nothing."""
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)


class UsageError(CaspiError):
    """A recipe, an argument or an input is not what it must be; exit code 2."""

    exit_code = 2


def install(extra: str) -> str:
    """The command that installs what an extra needs, the same in a checkout and from a wheel."""
    try:
        requirements = importlib.metadata.requires(DISTRIBUTION) or ()
    except importlib.metadata.PackageNotFoundError:  # run from its sources, not installed
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
        """Errors travel between processes; keyword-only arguments do not by themselves."""
        purpose, package, extra = self._parts
        return functools.partial(MissingDependency, purpose, package=package, extra=extra), ()
