"""A run on machines that are taken away, with notice or without; each machine's folder is lost with it."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from caspi import recipe
from tests.conftest import RECIPES, small_overrides

pytestmark = pytest.mark.slow

_INTERRUPTIONS = 20
_NOTICE_SECONDS = 30
_START_SECONDS = 120  # until a machine runs, at most
_LIFE_SECONDS = 1.0, 9.0  # of a machine that runs; it begins to train after about three
_EPOCHS = 80  # of six steps: more than twenty machines can do


def start(machine: Path, *options: str) -> subprocess.Popen[bytes]:
    machine.mkdir()
    overrides = [
        *small_overrides(Path("mine")), f"train.stages.1.epochs={_EPOCHS}", "train.evaluate.every=100",
        "train.save_every=10",
    ]  # fmt: skip
    made = recipe.load(RECIPES / "demo.yaml", tuple(overrides))
    (machine / "mine.yaml").write_text(recipe.dump(made), encoding="utf-8")
    command = [sys.executable, "-m", "caspi", "run", "mine.yaml", "--no-audit", "--until", "train", *options]
    with (machine.parent / f"{machine.name}.log").open("wb") as log:
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        return subprocess.Popen(command, cwd=machine, env=environment, stderr=log, start_new_session=True)


def taken_away(process: subprocess.Popen[bytes], machine: Path, *, with_notice: bool) -> int:
    """Ends a machine; its exit code."""
    if with_notice:
        process.send_signal(signal.SIGTERM)
        code = process.wait(_NOTICE_SECONDS)
    else:
        os.killpg(process.pid, signal.SIGKILL)
        code = process.wait()
    shutil.rmtree(machine)
    return code


def weights(machine: Path) -> bytes:
    return (machine / "mine" / "train" / "best" / "model.safetensors").read_bytes()


def test_twenty_interruptions_give_the_same_weights(tmp_path: Path) -> None:
    draw = random.Random(0)
    undisturbed = start(tmp_path / "alone")
    bucket, codes = ("--bucket", (tmp_path / "bucket").as_uri()), []
    for number in range(_INTERRUPTIONS):
        machine = tmp_path / f"machine-{number}"
        process = start(machine, *bucket)
        log = tmp_path / f"machine-{number}.log"
        began = time.monotonic()
        while "$ caspi prepare" not in log.read_text() and time.monotonic() < began + _START_SECONDS:
            time.sleep(0.05)
        time.sleep(draw.uniform(*_LIFE_SECONDS))
        assert process.poll() is None, f"ended before it was interrupted {_INTERRUPTIONS} times: {log.read_text()}"
        codes.append(taken_away(process, machine, with_notice=draw.random() < 0.5))
    assert {75, -signal.SIGKILL} == set(codes)
    last = tmp_path / "last"
    assert start(last, *bucket).wait() == 0, (tmp_path / "last.log").read_text()
    assert undisturbed.wait() == 0
    assert weights(last) == weights(tmp_path / "alone")
    logs = [(tmp_path / f"machine-{number}.log").read_text() for number in range(_INTERRUPTIONS)]
    assert sum("went on from the bucket" in log for log in logs) > _INTERRUPTIONS / 2
