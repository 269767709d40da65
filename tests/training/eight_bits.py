"""Trains a recipe whose optimizer keeps its moments in eight bits; run by a test, under torchrun too.

python -m tests.training.eight_bits RECIPE [STEP]

STEP: the step in which the machine is asked to end.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import torch

from caspi import cli, commands, recipe
from caspi.training.trainer import StageTrainer


def main(path: str, last: int) -> None:
    take, taken = StageTrainer.training_step, 0

    def training_step(self: StageTrainer, *inputs: object) -> torch.Tensor:
        nonlocal taken
        taken += 1
        if taken == last:
            os.kill(os.getpid(), signal.SIGTERM)
        return take(self, *inputs)

    sys.path.append(str(Path(sys.prefix) / "torchao"))  # where the Makefile puts it
    torch.compile = lambda function, **_: function  # it compiles its step for every shape there is: not here
    StageTrainer.training_step = training_step
    sys.exit(cli._guarded(lambda: commands.train(recipe.load(Path(path))), debug=False))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 0)
