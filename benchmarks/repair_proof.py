"""What repair wins back: training on faulty transcripts, on what repair made of them, and on the clean ones.

    python benchmarks/repair_proof.py RECIPE CORPUS --out DIR [--share 0.2] [--aligner tiny-aligner] [--asr MODEL]
        [--seeds 3]

CORPUS is clean; a copy with faults is made (spoiled_corpus.py), audited as a whole and repaired. Every seed trains the
recipe on each of the three, with the same number of steps, and `caspi average` of the best three is evaluated on the
test split. What is there already is not made again. Prints a line for every model, and at the end for each corpus the
mean WER of its seeds with the 95 % interval of their mean (t distribution), and the share of the loss that repair wins
back.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
from pathlib import Path

from caspi.corpus.store import Corpus

_T95 = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78}  # Student's t, two-sided 95 %, by the number of seeds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--share", type=float, default=0.2)
    parser.add_argument("--aligner", default="tiny-aligner")
    parser.add_argument("--asr", action="append", default=[])
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    corpora = _corpora(options)
    count = len(Corpus.open(options.corpus, "train"))
    found: dict[str, list[float]] = {name: [] for name in corpora}
    for seed in range(options.seeds):
        for name, corpus in corpora.items():
            longer = count / len(Corpus.open(corpus, "train"))  # the same number of steps
            wer = _trained(options.recipe, corpus, options.out / f"{name}-{seed}", seed, longer)
            found[name].append(wer)
            print(json.dumps({"corpus": name, "seed": seed, "wer": wer}), flush=True)
    mean = {name: statistics.mean(values) for name, values in found.items()}
    for name, values in found.items():
        half = _T95[len(values)] * statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
        print(json.dumps({"corpus": name, "wer": mean[name], "interval": [mean[name] - half, mean[name] + half]}))
    lost = mean["faulty"] - mean["clean"]
    print(json.dumps({"lost": lost, "won_back": (mean["faulty"] - mean["repaired"]) / lost}))


def _corpora(options: argparse.Namespace) -> dict[str, Path]:
    faulty, audit, repaired = (options.out / name for name in ("faulty", "audit", "repaired"))
    if not faulty.exists():
        script = Path(__file__).with_name("spoiled_corpus.py")
        _run(sys.executable, str(script), str(options.corpus), str(faulty), "--share", str(options.share))
    if not audit.exists():
        models = [word for model in options.asr for word in ("--asr", model)] + ["--aligner", options.aligner]
        _caspi("audit", str(faulty), *models, "--share", "1", "--out", str(audit))
    if not repaired.exists():
        _caspi("repair", str(faulty), "--from", str(audit), "--out", str(repaired))
    return {"faulty": faulty, "repaired": repaired, "clean": options.corpus}


def _trained(recipe: Path, corpus: Path, folder: Path, seed: int, longer: float) -> float:
    """The WER of the averaged model on the test split."""
    summary = folder / "evaluation" / "summary.json"
    if not summary.is_file():
        from caspi import recipe as recipes

        stages = recipes.load(recipe).require_train().stages
        epochs = [f"train.stages.{n}.epochs={stage.epochs * longer}" for n, stage in enumerate(stages)]
        overrides = [f"corpus.path={corpus}", f"train.path={folder / 'train'}", f"seed={seed}", *epochs]
        _caspi("train", str(recipe), *overrides)
        _caspi("average", str(folder / "train"), "--top", "3")
        _caspi("evaluate", str(folder / "train" / "average"), str(corpus), "--out", str(folder / "evaluation"))
    return float(json.loads(summary.read_text("utf-8"))["leaderboard"]["wer"])


def _caspi(*arguments: str) -> None:
    _run(sys.executable, "-m", "caspi", *arguments)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 3):  # 3: the audit says STOP
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-4000:]}")


if __name__ == "__main__":
    main()
