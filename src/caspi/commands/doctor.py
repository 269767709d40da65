"""caspi doctor: what this machine has, what is missing and how to install it."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from caspi.commands.outcome import Outcome
from caspi.errors import install


@dataclass(frozen=True, slots=True)
class Finding:
    """status: `ok`, `missing` (an option is not available) or `broken` (caspi cannot work)."""

    what: str
    status: str
    detail: str


_EXTRAS = {
    "demo": ("espeakng_loader", "synthetic speech"),
    "hub": ("datasets", "Hugging Face data sets"),
    "serve": ("fastapi", "caspi serve"),
    "vad": ("silero_vad", "telling speech from music and noise"),
    "base": ("wordfreq", "training the base model tiny again"),
}


def run() -> Outcome:
    """Prints one line per finding; the exit code is 1 if caspi cannot work here."""
    findings = examine()
    text = "".join(f"{finding.status:8} {finding.what:14} {finding.detail}\n" for finding in findings)
    broken = any(finding.status == "broken" for finding in findings)
    summary = {"findings": [asdict(finding) for finding in findings]}
    return Outcome("", Path(), summary, exit_code=int(broken), text=text)


def examine() -> list[Finding]:
    """Checks everything that a first run needs."""
    return [_python(), *_hardware(), _disk(), _tiny(), *_extras(), _token()]


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    return Finding(
        "python", "ok" if (3, 11) <= sys.version_info < (3, 14) else "broken", f"{version}; 3.11 to 3.13 is required"
    )


def _hardware() -> list[Finding]:
    import torch

    cores = len(os.sched_getaffinity(0))
    found = [Finding("torch", "ok", f"{torch.__version__}, {cores} CPU cores")]
    if not torch.cuda.is_available():
        return [*found, Finding("gpu", "missing", "none; tiny trains on a CPU, the released models need a GPU")]
    for number in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(number)
        found.append(Finding(f"gpu {number}", "ok", f"{properties.name}, {properties.total_memory / 2**30:.1f} GiB"))
    return found


def _disk() -> Finding:
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    return Finding("disk", "ok" if free > 5 else "missing", f"{free:.1f} GiB free here; the demo needs about 2")


def _tiny() -> Finding:
    from caspi.errors import CaspiError
    from caspi.model.config import ModelConfig
    from caspi.model.loading import load

    try:
        parameters = sum(p.numel() for p in load(ModelConfig(start="tiny")).model.parameters())
    except CaspiError as error:
        return Finding("tiny", "broken", str(error))
    return Finding("tiny", "ok", f"{parameters:,} parameters")


def _extras() -> list[Finding]:
    return [
        Finding(f"extra {extra}", "ok", purpose)
        if importlib.util.find_spec(module)
        else Finding(f"extra {extra}", "missing", f"{purpose}: {install(extra)}")
        for extra, (module, purpose) in _EXTRAS.items()
    ]


def _token() -> Finding:
    if os.environ.get("HF_TOKEN"):
        return Finding("HF_TOKEN", "ok", "set")
    return Finding("HF_TOKEN", "missing", "needed for gated data sets and uploads: huggingface.co/settings/tokens")
