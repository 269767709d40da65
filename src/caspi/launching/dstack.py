"""dstack: a task (dstack.ai/docs/reference/dstack.yml/task)."""

from __future__ import annotations

from collections.abc import Sequence

from caspi.launching.job import GRACE_SECONDS, Job, as_yaml

FILE, CLIENT = "task.dstack.yml", "dstack"
_NAMES = {"a100-40gb": "A100:40GB", "a100-80gb": "A100:80GB", "h100": "H100", "h200": "H200", "l4": "L4"}


def task(job: Job) -> str:
    """The task file. A spot machine that is taken away is an interruption, after which dstack starts the job again."""
    content: dict[str, object] = {
        "type": "task",
        "name": job.name,
        "python": "3.12",
        "env": list(job.secrets),  # values come from the environment of `dstack apply`
        "commands": [job.script()],
        "resources": {"gpu": f"{_NAMES.get(job.gpu, job.gpu.upper())}:{job.count}", "disk": "256GB.."},
        "spot_policy": "spot" if job.spot else "on-demand",
        "retry": {"on_events": ["no-capacity", "interruption"], "duration": f"{job.hours}h"},
        "stop_duration": f"{GRACE_SECONDS}s",
        "max_duration": f"{job.hours}h",
    }
    if not job.secrets:
        del content["env"]
    return as_yaml(content)


def submit(job: Job, file: str) -> Sequence[str]:
    """The command that starts the job."""
    return [CLIENT, "apply", "-y", "-d", "-f", file]
