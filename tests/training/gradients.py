"""Run by tests, alone or under torchrun: the gradients of a recipe's first steps, as the optimizer gets them.

python -m tests.training.gradients RECIPE OUT STEPS
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from caspi import commands, recipe
from caspi.training.processes import processes


def main(path: str, out: str, steps: int) -> None:
    taken = 0
    real = torch.optim.AdamW.step

    def step(self: torch.optim.AdamW, closure: None = None) -> None:
        nonlocal taken
        if taken < steps and processes().is_main_process:
            found = {f"{n}": p.grad.clone() for n, p in enumerate(p for g in self.param_groups for p in g["params"])}
            save_file(found, Path(out) / f"{taken}.safetensors")
        taken += 1
        real(self, closure)

    torch.optim.AdamW.step = step
    commands.train(recipe.load(Path(path)))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
