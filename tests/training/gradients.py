"""The gradient of a recipe's first step, as the optimizer gets it; also run by a test under torchrun.

python -m tests.training.gradients RECIPE OUT
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from caspi import commands, recipe
from caspi.training.distributed.processes import processes


def train(made: recipe.Recipe, out: Path) -> None:
    """Trains, and writes the gradient into a file."""
    real = torch.optim.AdamW.step

    def step(self: torch.optim.AdamW, closure: None = None) -> None:
        if not out.exists() and processes().is_main_process:
            found = {f"{n}": p.grad.clone() for n, p in enumerate(p for g in self.param_groups for p in g["params"])}
            save_file(found, out)
        real(self, closure)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", step)
        commands.train.run(made)


if __name__ == "__main__":
    train(recipe.load(Path(sys.argv[1])), Path(sys.argv[2]))
