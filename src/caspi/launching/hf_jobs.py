"""Hugging Face Jobs (huggingface.co/docs/huggingface_hub/guides/jobs): the command that starts one, as a script."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from caspi.errors import UsageError
from caspi.launching.job import Job

FILE, CLIENT = "hf-jobs.sh", "hf"
_IMAGE = "python:3.12"  # torch's wheel brings CUDA
_FLAVORS = {
    "a100-80gb": {1: "a100-large", 4: "a100x4", 8: "a100x8"},
    "h200": {1: "h200", 2: "h200x2", 4: "h200x4", 8: "h200x8"},
    "l4": {1: "l4x1", 4: "l4x4"},
}


def task(job: Job) -> str:
    """The script. A job is not tried again by itself: they take no machine away, and would also repeat what failed.
    Raises UsageError for a machine that is not offered."""
    offered = _FLAVORS.get(job.gpu, {})
    if job.count not in offered:
        machines = ", ".join(f"{count} x {gpu}" for gpu, kinds in _FLAVORS.items() for count in kinds)
        raise UsageError(f"Hugging Face Jobs have no machine of {job.count} x {job.gpu}; they have {machines}")
    if job.spot:
        raise UsageError("Hugging Face Jobs have no spot machines: leave --spot out")
    secrets = [word for name in job.secrets for word in ("--secrets", name)]
    command = [
        CLIENT, "jobs", "run", "--detach", "--name", job.name, "--flavor", offered[job.count],
        "--timeout", f"{job.hours}h", *secrets, _IMAGE, "bash", "-c", job.script(),
    ]  # fmt: skip
    return f"#!/bin/sh\n{shlex.join(command)}\n"


def submit(job: Job, file: str) -> Sequence[str]:
    """The command that starts the job."""
    return ["sh", file]
