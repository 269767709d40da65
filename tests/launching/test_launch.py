"""Task files for launchers: what the tools themselves read in them, and what their script does."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from caspi import commands, recipe
from caspi.bucket import Bucket
from caspi.commands.launch import LAUNCHERS, LaunchOptions
from caspi.errors import CaspiError, UsageError
from caspi.training.planning.assumed import AssumedCorpus
from tests.conftest import ROOT

RECIPE = """
name: mine
language: Hebrew
corpus:
  path: runs/mine/corpus
  sources:
    - {kind: huggingface, dataset: ivrit-ai/crowd-transcribe-v5}
model: {start: tiny}
train:
  path: runs/mine/train
  stages: [{name: all, groups: {decoder_layers: 1e-4}}]
"""


def made(tmp_path: Path, *overrides: str) -> recipe.Recipe:
    (tmp_path / "mine.yaml").write_text(RECIPE)
    return recipe.load(tmp_path / "mine.yaml", overrides)


def options(tmp_path: Path, on: str, **changes: Any) -> LaunchOptions:
    return LaunchOptions(
        **{
            "on": on,
            "bucket": "s3://mine/round1",
            "gpu": "h200",
            "count": 8,
            "out": tmp_path,
            "dry_run": True,
            "install": "pip install caspi",
        }
        | changes
    )


def written(tmp_path: Path, on: str, **changes: Any) -> str:
    return commands.launch.run(made(tmp_path), options(tmp_path, on, **changes)).path.read_text("utf-8")


def script(tmp_path: Path, on: str) -> str:
    """The shell script in a task file."""
    content = written(tmp_path, on)
    if on == "skypilot":
        return str(yaml.safe_load(content)["run"])
    if on == "dstack":
        return str(yaml.safe_load(content)["commands"][0])
    return content if on == "slurm" else shlex.split(content.partition("\n")[2])[-1]


PROGRAMS = {
    "caspi": "trap 'echo ended >> {folder}/log; exit 75' TERM; echo \"$@\" >> {folder}/log; "
    "cp recipe.yaml {folder}/recipe.yaml; [ -e {folder}/fail ] && exit 3; "
    "[ -e {folder}/wait ] || exit 0; sleep 30 & wait",
    "scontrol": 'echo scontrol "$@" >> {folder}/log',
}


@pytest.fixture
def machine(tmp_path: Path) -> dict[str, str]:
    """An environment with programs that only write down how they are called."""
    for name, text in PROGRAMS.items():
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text("#!/bin/bash\n" + text.replace("{folder}", str(tmp_path)) + "\n")
        program.chmod(0o755)
    return os.environ | {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "SLURM_JOB_ID": "7"}


@pytest.mark.parametrize("on", LAUNCHERS)
def test_the_script_runs_the_recipe_and_passes_on_how_it_ended(
    on: str, tmp_path: Path, machine: dict[str, str]
) -> None:
    text = script(tmp_path, on)
    assert subprocess.run(["bash", "-c", text], env=machine, cwd=tmp_path, check=False).returncode == 0
    log = tmp_path / "log"
    assert log.read_text() == "run recipe.yaml --bucket s3://mine/round1\n"
    assert recipe.load(tmp_path / "recipe.yaml") == made(tmp_path)
    (tmp_path / "fail").touch()
    assert subprocess.run(["bash", "-c", text], env=machine, cwd=tmp_path, check=False).returncode == 3
    (tmp_path / "fail").unlink()
    (tmp_path / "wait").touch()
    log.unlink()
    process = subprocess.Popen(["bash", "-c", text], env=machine, cwd=tmp_path)
    while not log.exists():
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 75
    assert "ended" in log.read_text()
    assert ("scontrol requeue 7" in log.read_text()) == (on == "slurm")


@pytest.mark.parametrize("on", LAUNCHERS)
def test_secrets_are_named_and_their_values_are_not_written(
    on: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "WANDB_API_KEY"):
        monkeypatch.setenv(name, f"secret-of-{name}")
    content = written(tmp_path, on, secrets=("WANDB_API_KEY",))
    assert "secret-of" not in content
    if on != "slurm":  # a job has the environment of its sbatch
        assert all(name in content for name in ("HF_TOKEN", "AWS_ACCESS_KEY_ID", "WANDB_API_KEY"))


def test_what_is_installed_is_what_runs_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By what pip notes of a package from a repository (PEP 610)."""
    import importlib.metadata

    origin = {"url": "https://example.org/caspi", "vcs_info": {"vcs": "git", "commit_id": "abc123"}}

    class Installed:
        def read_text(self, name: str) -> str:
            return json.dumps(origin) if name == "direct_url.json" else ""

    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: Installed())
    content = written(tmp_path, "dstack", install=None)
    assert "pip install 'caspi-asr[demo,hub,vad] @ git+https://example.org/caspi@abc123' s3fs" in content


def test_secrets_are_those_that_the_run_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    local = made(tmp_path, "corpus.sources=[{kind: csv, path: mine.csv}]")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://example.org")
    found = commands.launch.run(local, options(tmp_path, "dstack")).summary["secrets"]
    assert found == ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL"]
    assert commands.launch.run(local, options(tmp_path, "dstack", bucket="gs://mine/x")).summary["secrets"] == []
    assert commands.launch.run(local, options(tmp_path, "dstack", bucket="hf://me/x")).summary["secrets"] == [
        "HF_TOKEN"
    ]


def test_options_of_run_are_checked_before(tmp_path: Path) -> None:
    from caspi.cli import _check_run_options

    _check_run_options("mine.yaml", "--budget 5 --no-audit")
    with pytest.raises(UsageError, match="--run '--bogus': "):
        _check_run_options("mine.yaml", "--bogus")


def test_hf_jobs_reads_its_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real `hf`, up to the request."""
    from huggingface_hub import HfApi
    from huggingface_hub.cli.hf import main

    started: dict[str, Any] = {}

    def run_job(self: HfApi, **given: Any) -> None:
        started.update(given)
        raise SystemExit(0)

    monkeypatch.setattr(HfApi, "run_job", run_job)
    monkeypatch.setenv("HF_TOKEN", "hf_x")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "y")
    content = written(tmp_path, "hf-jobs", assumed=AssumedCorpus({"": 300.0}))
    monkeypatch.setattr(sys, "argv", shlex.split(content.partition("\n")[2]))
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert started["flavor"] == "h200x8"
    assert started["timeout"].endswith("h")
    assert started["command"][:2] == ["bash", "-c"]
    assert "caspi run recipe.yaml" in started["command"][2]
    assert set(started["secrets"]) == {"HF_TOKEN", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}


def environment(name: str) -> Path:
    python = ROOT / ".venv" / name / "bin" / "python"
    if not python.exists():
        pytest.skip(f"make test-slow makes the environment of {name}")
    return python


SKYPILOT = """
import json, sys, sky, yaml
config = yaml.safe_load(open(sys.argv[1]))
task = sky.Task.from_yaml_config(config, secrets_overrides=[(name, "x") for name in config["secrets"]])
[resources] = task.resources
print("READ" + json.dumps([resources.accelerators, resources.use_spot, resources.job_recovery, sorted(task.secrets),
                           task.run]))
"""


@pytest.mark.slow
def test_skypilot_reads_its_task_file(tmp_path: Path) -> None:
    python = environment("skypilot")
    outcome = commands.launch.run(made(tmp_path), options(tmp_path, "skypilot", spot=True))
    done = subprocess.run([python, "-c", SKYPILOT, str(outcome.path)], capture_output=True, text=True, check=False)
    assert "READ" in done.stdout, done.stderr
    accelerators, spot, recovery, secrets, run = json.loads(done.stdout.partition("READ")[2])
    assert accelerators == {"H200": 8}
    assert spot
    assert recovery["recover_on_exit_codes"] == [75]
    assert secrets == ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "HF_TOKEN"]
    assert "caspi run recipe.yaml" in run


DSTACK = """
import sys, yaml
from dstack._internal.core.models.configurations import parse_apply_configuration
print("READ" + parse_apply_configuration(yaml.safe_load(open(sys.argv[1]))).model_dump_json())
"""


@pytest.mark.slow
def test_dstack_reads_its_task_file(tmp_path: Path) -> None:
    python = environment("dstack")
    for gpu, spot in (("h200", False), ("a100-40gb", True)):
        outcome = commands.launch.run(made(tmp_path), options(tmp_path, "dstack", gpu=gpu, spot=spot))
        done = subprocess.run([python, "-c", DSTACK, str(outcome.path)], capture_output=True, text=True, check=False)
        assert "READ" in done.stdout, done.stderr
        read = json.loads(done.stdout.partition("READ")[2])
        read = read.get("root", read)
        assert read["type"] == "task"
        assert read["resources"]["gpu"]["count"] == {"min": 8, "max": 8}
        assert read["resources"]["gpu"]["name"] == [gpu.partition("-")[0].upper()]
        assert read["spot_policy"] == ("spot" if spot else "on-demand")
        assert read["retry"]["on_events"] == ["no-capacity", "interruption"]


def test_what_it_costs_is_said_before(tmp_path: Path) -> None:
    known = commands.launch.run(made(tmp_path), options(tmp_path, "skypilot", assumed=AssumedCorpus({"": 300.0})))
    assert "training about" in known.line
    assert "$" in known.line
    assert "sky jobs launch" in known.line
    unknown = commands.launch.run(made(tmp_path), options(tmp_path, "skypilot", spot=True))
    assert "17.60 $ an hour; how many is not known without a corpus (--hours)" in unknown.line


def test_it_is_started_with_the_tools_own_client(
    tmp_path: Path, machine: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", machine["PATH"])
    client = tmp_path / "bin" / "sky"
    client.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/started\n')
    client.chmod(0o755)
    outcome = commands.launch.run(made(tmp_path), options(tmp_path, "skypilot", dry_run=False))
    assert outcome.summary["submitted"]
    assert (tmp_path / "started").read_text().startswith("jobs launch --yes --secret AWS_ACCESS_KEY_ID")
    client.write_text("#!/bin/sh\nexit 9\n")
    with pytest.raises(CaspiError, match="ended with exit code 9"):
        commands.launch.run(made(tmp_path), options(tmp_path, "skypilot", dry_run=False))


def test_recordings_of_this_machine_have_to_be_in_the_bucket_first(tmp_path: Path, machine: dict[str, str]) -> None:
    local = made(tmp_path, "corpus.sources=[{kind: csv, path: mine.csv}]")
    bucket = (tmp_path / "bucket").as_uri()
    with pytest.raises(UsageError, match="first caspi run RECIPE --until audit --bucket file"):
        commands.launch.run(local, options(tmp_path, "slurm", bucket=bucket, dry_run=False))
    prepared = Bucket(bucket, {"run": tmp_path / "runs"}, tmp_path)
    prepared.pull()
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "steps.json").write_text("{}")
    prepared.push()
    with pytest.raises(UsageError, match="sbatch is not installed"):
        commands.launch.run(local, options(tmp_path, "slurm", bucket=bucket, dry_run=False))


def test_what_it_refuses(tmp_path: Path) -> None:
    for changes, message in (
        ({"on": "kubernetes"}, "--on kubernetes: not one of skypilot, dstack, hf-jobs, slurm"),
        ({"gpu": "tpu"}, "--gpu tpu: not one of a100-40gb"),
        ({"on": "hf-jobs", "gpu": "h100"}, "have no machine of 8 x h100; they have 1 x a100-80gb"),
        ({"on": "hf-jobs", "spot": True}, "no spot machines"),
        ({"on": "slurm", "spot": True}, "no spot machines"),
        ({"out": tmp_path / "none"}, "cannot be written"),
        ({"install": None}, "installed from a folder: say how the machine installs it"),
        ({"bucket": "/mnt/mine"}, "is lost with the machine"),
        ({"bucket": ""}, "is lost with the machine"),
    ):
        with pytest.raises(UsageError, match=message):
            commands.launch.run(made(tmp_path), options(tmp_path, **{"on": "skypilot"} | changes))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"corpus\.path /x is a path of this machine"):
        commands.launch.run(made(tmp_path, "corpus.path=/x"), options(tmp_path, "slurm"))
    stages = "[{name: all, groups: {audio_layers: 1e-4, decoder_layers: 1e-4}}]"
    batches = ("train.max_batch_seconds=2000", "train.max_batch_tokens=60000", f"train.stages={stages}")
    large = made(tmp_path, "model={start: tiny, init: random, scale: 1.7b}", *batches)
    small = options(tmp_path, "dstack", gpu="l4", count=1, assumed=AssumedCorpus({"": 300.0}))
    with pytest.raises(UsageError, match="does not fit"):
        commands.launch.run(large, small)
