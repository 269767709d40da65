"""Runs the command line as a program: exit codes, errors in one line, Ctrl-C at any moment."""

from __future__ import annotations

import _thread
import os
import sys
import threading
import traceback
from collections.abc import Callable

from caspi.cli import app
from caspi.errors import CaspiError, first_line
from caspi.terminal import show_log


def quiet_libraries() -> None:
    """Turns off messages and progress bars of libraries, and makes idle OpenMP threads sleep."""
    # If threads spin while they wait for work, training runs at half speed beside one other busy process, and no
    # faster without one (docs/log/2026-11-30.md). The variable is read when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # hides messages about retries
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


_INTERRUPTED = 130  # the exit code of shells after Ctrl-C; typer uses it too
_RESUMES = "caspi: interrupted; run the same command again to resume from what was saved"


class _Missed:
    """Sends a Ctrl-C again if a library's callback or clean-up received it: Python only prints and ignores it there."""

    def __init__(self) -> None:
        self._again: threading.Timer | None = None

    def __call__(self, what: sys.UnraisableHookArgs) -> None:
        """Called as sys.unraisablehook."""
        if what.exc_type is not KeyboardInterrupt:
            sys.__unraisablehook__(what)
            return
        self._again = threading.Timer(0.05, _thread.interrupt_main)
        self._again.daemon = True
        self._again.start()

    def taken_back(self) -> bool:
        """Cancels a Ctrl-C that is about to be sent again. Returns whether there was one."""
        if self._again is None or not self._again.is_alive():
            return False
        self._again.cancel()
        return True


def _print(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def guarded(run: Callable[[], object], debug: bool) -> int:
    """Runs a command and returns its exit code. A failure is one line, with `--debug` also a traceback."""
    missed = _Missed()
    before, sys.unraisablehook = sys.unraisablehook, missed
    try:
        run()
    except SystemExit as error:  # raised by typer: usage errors, --help, typer.Exit
        if error.code == _INTERRUPTED:
            _print(_RESUMES)
        return error.code if isinstance(error.code, int) else 0
    except KeyboardInterrupt:
        _print(_RESUMES)
        return _INTERRUPTED
    except Exception as error:
        if missed.taken_back():  # a library turned the Ctrl-C in its callback into this error
            _print(_RESUMES)
            return _INTERRUPTED
        return _failed(error, debug)
    finally:
        sys.unraisablehook = before
    return 0


def _failed(error: Exception, debug: bool) -> int:
    if debug:
        traceback.print_exception(error)
    if isinstance(error, CaspiError):
        _print(f"caspi: {error}")
        return error.exit_code
    if isinstance(error, OSError):
        _print(f"caspi: {error.filename or 'input or output'}: {error.strerror or error}")
    elif not debug:
        first = first_line(error)
        _print(f"caspi: unexpected {type(error).__name__}: {first}; `caspi --debug ...` shows where")
    return 1


def main() -> None:
    """Entry point."""
    quiet_libraries()
    show_log()
    sys.exit(guarded(app, debug="--debug" in sys.argv))
