"""Slurm: a batch script, which puts itself back into the queue where caspi was asked to end (sbatch's manual page)."""

from __future__ import annotations

from collections.abc import Sequence

from caspi.errors import UsageError
from caspi.launching.job import GRACE_SECONDS, SAVED, Job

FILE, CLIENT = "slurm.sbatch", "sbatch"
_CPUS_A_GPU = 8


def task(job: Job) -> str:
    """The script. It asks for GPUs by number: the names of kinds and partitions are those of each cluster. Raises
    UsageError for spot machines, which a cluster has as a partition, if at all."""
    if job.spot:
        raise UsageError("Slurm has no spot machines: leave --spot out, and name the partition with sbatch --partition")
    requeue = f'[ "$code" -eq {SAVED} ] && scontrol requeue "$SLURM_JOB_ID"\nexit "$code"'
    return f"""\
#!/bin/bash
#SBATCH --job-name={job.name}
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task={_CPUS_A_GPU * job.count}
# Priced for {job.gpu}: where the cluster names kinds of GPUs, say --gpus-per-node=KIND:{job.count}
#SBATCH --gpus-per-node={job.count}
#SBATCH --time={job.hours}:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output={job.name}-%j.log
#SBATCH --signal=B:TERM@{GRACE_SECONDS}
{job.script(exit_line=requeue)}"""


def submit(job: Job, file: str) -> Sequence[str]:
    """The command that starts the job."""
    return [CLIENT, file]
