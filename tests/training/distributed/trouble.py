"""Run by tests under torchrun: faults of the second process only, each kind once.

python -m tests.training.distributed.trouble RECIPE MARKER KIND ...

memory: its second pass runs out of memory; number: its loss is NaN, two steps before the run's end; disk: the first
utterance that it reads cannot be read. MARKER: a file; if it exists, memory does not run out.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

from caspi import commands, program, recipe
from caspi.corpus.store import Corpus
from caspi.model.batch import Batch
from caspi.training.data import steps
from caspi.training.distributed.processes import processes
from caspi.training.loop import StageLoop
from caspi.training.objectives.cross_entropy import CrossEntropy


def main(path: str, marker: Path, kinds: set[str]) -> None:
    passes, taken = 0, 0
    compute, take, read = CrossEntropy.forward, StageLoop._gradient, Corpus.samples
    broken: list[int] = []

    def gradient(self: StageLoop, *inputs: object) -> object:
        nonlocal taken
        taken += 1
        return take(self, *inputs)

    def forward(self: CrossEntropy, batch: Batch) -> torch.Tensor:
        nonlocal passes
        mine = torch.is_grad_enabled() and processes().process_index == 1
        passes += mine
        if mine and "memory" in kinds and passes == 2 and not marker.exists():
            marker.touch()
            raise torch.OutOfMemoryError("injected")
        loss = compute(self, batch)
        return loss * float("nan") if mine and "number" in kinds and taken == 8 else loss

    def samples(corpus: Corpus, row: int) -> np.ndarray:
        if "disk" in kinds and corpus.split == "train" and processes().process_index == 1:
            broken.extend([row] if not broken else [])
            if row in broken:
                raise OSError(5, "Input/output error")
        return read(corpus, row)

    CrossEntropy.forward = forward
    StageLoop._gradient = gradient
    Corpus.samples = samples
    steps._RETRY_AFTER = (0.0, 0.0)
    sys.exit(program.guarded(lambda: commands.train.run(recipe.load(Path(path))), debug=False))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), set(sys.argv[3:]))
