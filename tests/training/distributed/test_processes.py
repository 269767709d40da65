"""Two processes that each hold the model, started by torchrun, compared with one; and faults of one of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from caspi import recipe
from caspi.corpus.store import Corpus
from tests.support import final_weights, kill_a_rank, lines, metrics, run_recipe

"""Two processes that each hold the model, started by torchrun, compared with one; and faults of one of them."""
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(torch.cuda.is_available(), reason="compared with a run in fp32, on a CPU"),
]
LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}


def written(folder: Path, made: recipe.Recipe) -> str:
    path = folder / "recipe.yaml"
    path.write_text(recipe.dump(made), encoding="utf-8")
    return str(path)


def test_two_processes_with_one_killed_train_like_one_process(
    small_corpus: Path, small_run: Path, tmp_path: Path
) -> None:
    """The same effective batches, the same loss curve, the same weights, one report."""
    run = tmp_path / "train"
    command = [*LAUNCH, "-m", "caspi", "train", written(tmp_path, run_recipe(tmp_path, small_corpus))]
    kill_a_rank(command, ENVIRONMENT, run)
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr[-3000:]
    assert np.allclose(metrics(run, "loss"), metrics(small_run, "loss"), rtol=1e-4)
    one, two = final_weights(small_run), final_weights(run)
    assert all(torch.allclose(one[name], two[name], atol=1e-4) for name in one)


def test_all_processes_handle_the_faults_of_one(small_corpus: Path, small_run: Path, tmp_path: Path) -> None:
    """Out of memory, a non-finite loss and an unreadable utterance, in the second process only."""
    run, marker = tmp_path / "train", tmp_path / "marker"
    trouble = [
        "-m",
        "tests.training.distributed.trouble",
        written(tmp_path, run_recipe(tmp_path, small_corpus)),
        str(marker),
    ]
    done = subprocess.run(
        [*LAUNCH, *trouble, "memory", "number", "disk"], capture_output=True, text=True, check=False, env=ENVIRONMENT
    )
    assert done.returncode == 0, done.stderr[-3000:]
    ran_out = lines(run, "out_of_memory")
    assert [(row["stage"], row["step"]) for row in ran_out] == [("letters", 2)] * len(ran_out)
    assert ran_out
    replaced = [entry for row in lines(run, "replaced") for entry in row["replaced"]]
    assert len({entry["utterance"] for entry in replaced}) == 1
    assert "Input/output error" in replaced[0]["why"]
    [skipped] = lines(run, "skipped")
    assert (skipped["stage"], skipped["step"]) == ("all", 5)
    known = set(Corpus.open(small_corpus, "train").column("id"))
    assert 0 < len(skipped["utterances"]) < 8
    assert set(skipped["utterances"]) <= known
    # The first step differs only by the replaced utterance.
    assert np.allclose(metrics(run, "loss")[1:3], metrics(small_run, "loss")[1:3], rtol=0.02)
    assert all(torch.isfinite(tensor).all() for tensor in final_weights(run).values())


@pytest.mark.parametrize(
    ("error", "code"), [("UsageError('no room')", 2), ("ZeroDivisionError('a bug')", 1)], ids=["user-error", "bug"]
)
def test_an_error_in_a_loaders_worker_ends_the_run(small_corpus: Path, tmp_path: Path, error: str, code: int) -> None:
    """Workers ignore SIGTERM, with which Python ends them: a failed run would occupy its GPU for ever."""
    made = run_recipe(
        tmp_path, small_corpus, "train.workers=2", "train.track=[]", "train.augment={reverberation: {probability: 1.0}}"
    )
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe.dump(made), encoding="utf-8")
    broken = (
        "import sys\nfrom caspi.program import main\nfrom caspi.errors import UsageError\n"
        "from caspi.augmentation import waveform\n"
        f"def fail(*_): raise {error}\n"
        "waveform.reverberate = fail\nsys.argv[1:1] = ['train']\nmain()"
    )
    command = [sys.executable, "-c", broken, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == code
    if code == 2:
        assert done.stderr.strip().split("\n")[-1] == "caspi: no room"
        assert "Traceback" not in done.stderr
