"""SkyPilot: a managed job, which resumes on another machine (docs.skypilot.co/en/latest/examples/managed-jobs.html)."""

from __future__ import annotations

from collections.abc import Sequence

from caspi.launching.job import SAVED, Job, as_yaml

FILE, CLIENT = "skypilot.yaml", "sky"
_NAMES = {"a100-40gb": "A100", "a100-80gb": "A100-80GB", "h100": "H100", "h200": "H200", "l4": "L4"}


def task(job: Job) -> str:
    """The task file."""
    resources: dict[str, object] = {
        "accelerators": f"{_NAMES.get(job.gpu, job.gpu)}:{job.count}",
        "use_spot": job.spot,
        "job_recovery": {"strategy": "EAGER_NEXT_REGION", "recover_on_exit_codes": [SAVED]},
        "disk_size": 256,
    }
    content: dict[str, object] = {"name": job.name, "resources": resources}
    if job.secrets:
        content["secrets"] = dict.fromkeys(job.secrets)  # values come from the environment, by --secret
    content["setup"] = f"command -v caspi >/dev/null || {{ {job.install}; }}"
    content["run"] = job.script()
    return as_yaml(content)


def submit(job: Job, file: str) -> Sequence[str]:
    """The command that starts the job."""
    secrets = [word for name in job.secrets for word in ("--secret", name)]
    return [CLIENT, "jobs", "launch", "--yes", *secrets, file]
