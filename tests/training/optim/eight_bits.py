"""Trains a recipe whose optimizer has 8-bit moments; run by a test under torchrun.

python -m tests.training.optim.eight_bits RECIPE STEP

STEP: the step in which the run is asked to end; then the same run resumes from its checkpoint. After that, the same
run without an interruption, in a folder beside it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path

import torch

from caspi import commands, recipe
from caspi.interrupts import Interrupted
from caspi.training.distributed import processes
from caspi.training.loop import StageLoop


def main(path: str, last: int) -> None:
    take, taken = StageLoop._gradient, 0

    def gradient(self: StageLoop, *inputs: object) -> object:
        nonlocal taken
        taken += 1
        if taken == last:
            os.kill(os.getpid(), signal.SIGTERM)
        return take(self, *inputs)

    sys.path.append(str(Path(sys.prefix) / "torchao"))  # where the Makefile puts it
    torch.compile = lambda function, **_: function  # it would compile its step for every shape
    StageLoop._gradient = gradient
    shutdown = processes.shutdown_distributed
    processes.shutdown_distributed = lambda: None  # one process group for three runs
    made = recipe.load(Path(path))
    with contextlib.suppress(Interrupted):
        commands.train.run(made)
        raise AssertionError("the run was not interrupted")
    commands.train.run(made)
    beside = made.require_train().path.with_name("undisturbed")
    commands.train.run(recipe.load(Path(path), (f"train.path={beside}",)))
    shutdown()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
