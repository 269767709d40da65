"""Run by a test under torchrun: the second process runs out of memory once, in its second step.

python -m tests.training.short_of_memory RECIPE MARKER
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from caspi import cli, commands, recipe
from caspi.training.collation import Batch
from caspi.training.objectives import CrossEntropy
from caspi.training.processes import processes


def main(path: str, marker: Path) -> None:
    real, calls = CrossEntropy.forward, 0

    def forward(self: CrossEntropy, batch: Batch) -> torch.Tensor:
        nonlocal calls
        calls += torch.is_grad_enabled()
        if calls == 2 and processes().process_index == 1 and not marker.exists():
            marker.touch()
            raise torch.OutOfMemoryError("injected")
        return real(self, batch)

    CrossEntropy.forward = forward
    sys.exit(cli._guarded(lambda: commands.train(recipe.load(Path(path))), debug=False))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
