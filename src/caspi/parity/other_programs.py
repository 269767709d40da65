"""Backends that are other packages, each in an environment of its own: a small script runs with its Python."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import soundfile
import torch

from caspi.audio import SAMPLE_RATE
from caspi.errors import CaspiError, UsageError
from caspi.export.formats import export
from caspi.parity.backends import Backend, by_windows, token_limit
from caspi.parity.clips import ParityClip

_PROGRAMS = Path(__file__).parent / "programs"
_SCRIPTS = {"qwen-asr": "qwen_asr_program.py", "vllm": "vllm_program.py"}
_SHOWN_LINES = 3  # of what a failing program printed


def other_program(name: str, python: Path, model: str) -> Backend:
    """qwen-asr or vllm. python: of an environment that has the package. Raises UsageError if there is no such file."""
    if not os.access(python, os.X_OK) or python.is_dir():
        raise UsageError(f"--{name}-python {python}: no such program; give the python of an environment with {name}")

    def recognise(windows: Sequence[ParityClip]) -> list[str]:
        with tempfile.TemporaryDirectory(prefix="caspi-parity-") as folder:
            exported = export(model, "qwen-asr", Path(folder) / "model")
            return _run(name, python, exported, windows, Path(folder))

    python = python.absolute()  # not resolved: the link tells Python its environment
    return Backend(name, f"{name}, {python}", lambda clips: by_windows(model, clips, recognise))


def _run(name: str, python: Path, model: Path, windows: Sequence[ParityClip], folder: Path) -> list[str]:
    """Texts of windows. Raises CaspiError with the program's last lines if it fails."""
    on_gpu = torch.cuda.is_available()
    listed = []
    for number, window in enumerate(windows):
        file = folder / f"{number}.wav"
        soundfile.write(file, window.samples, SAMPLE_RATE, subtype="FLOAT")
        listed.append({"file": str(file), "context": window.context, "limit": token_limit(window)})
    task = folder / "task.json"
    device, dtype = ("cuda", "bfloat16") if on_gpu else ("cpu", "float32")
    task.write_text(json.dumps({"device": device, "dtype": dtype, "windows": listed}), encoding="utf-8")
    done = subprocess.run(  # noqa: S603 - a script of caspi, with a Python that the user names
        [str(python), str(_PROGRAMS / _SCRIPTS[name]), str(model), str(task)],
        capture_output=True, text=True, check=False, cwd=folder,
    )  # fmt: skip
    answer = task.with_name("task.json.texts")
    if done.returncode or not answer.is_file():
        shown = "; ".join((done.stderr or done.stdout).strip().splitlines()[-_SHOWN_LINES:])
        raise CaspiError(f"{name} failed with exit code {done.returncode}: {shown}")
    texts: list[str] = json.loads(answer.read_text(encoding="utf-8"))["texts"]
    return texts
