"""Training ideas against each other on the demo's corpus: same audio, several seeds, word error rates with intervals.

    python benchmarks/wind_tunnel.py [--out runs/wind] [--seeds 0 1 2] [--only adamw muon ...]

Every variant is the demo's recipe (recipes/demo.yaml) with a few values changed; all see the same steps of the same
corpus, from the same start. Each run is evaluated on the demo's test split as `caspi evaluate` does. A line a run goes
to `--results`; runs that have one are not repeated, so the command may be stopped and started. Ends with a table: mean
over seeds, and the difference to `baseline` of the same seeds with the interval that a paired t-test gives.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
_LEARN = "{audio_front: 5e-4, audio_layers: 1e-3, projector: 1e-3, decoder_layers: 1e-3, embeddings: 1e-3}"
_LORA = "{rank: 16, alpha: 32, dropout: 0.1}"
_ALL = "train.stages.1"
VARIANTS: dict[str, tuple[str, ...]] = {
    "baseline": (),  # letters first, then everything: gradual unfreezing
    "one stage": (
        f"train.stages=[{{name: all, epochs: 1.4, learn: {_LEARN}, schedule: {{kind: cosine, warmup_ratio: 0.05}}}}]",
    ),
    "lora": (
        f"{_ALL}.learn={{audio_layers: {{lr: 4e-3, lora: {_LORA}}}, projector: 1e-3, embeddings: 1e-3, "
        f"decoder_layers: {{lr: 4e-3, lora: {_LORA}}}}}",
    ),
    "muon": (f"{_ALL}.optimizer=muon",),
    "normuon": (f"{_ALL}.optimizer=normuon",),
    "muon, twice the rate": (
        f"{_ALL}.optimizer=muon", f"{_ALL}.learn.audio_layers=2e-3", f"{_ALL}.learn.decoder_layers=2e-3",
    ),
    "normuon, twice the rate": (
        f"{_ALL}.optimizer=normuon", f"{_ALL}.learn.audio_layers=2e-3", f"{_ALL}.learn.decoder_layers=2e-3",
    ),
    "adamw, twice the rate": (f"{_ALL}.learn.audio_layers=2e-3", f"{_ALL}.learn.decoder_layers=2e-3"),
    "ema": (f"{_ALL}.ema=0.98",),
    "no augmentation": ("train.augment={}",),
    "no SpecAugment": ("train.augment.spec_augment=null",),
    "no gain": ("train.augment.gain_db=null",),
    "no noise": ("train.augment.noise=null",),
    "speed": ("train.augment.speed=[0.9, 1.0, 1.1]",),
    "silence": ("train.augment.silence={}",),
    "second speaker": ("train.augment.second_speaker={}",),
    "reverberation": ("train.augment.reverberation={}",),
    "clipping": ("train.augment.clipping={}",),
    "codec": ("train.augment.codec={}",),
    "hotwords": ("train.hotwords={at_most: 1000}",),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/wind"))
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results" / "wind_tunnel.jsonl")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    options = parser.parse_args()
    corpus = options.out / "corpus"
    _caspi("prepare", str(ROOT / "recipes" / "demo.yaml"), f"corpus.path={corpus}")
    for seed in options.seeds:
        for name in options.only:
            if (name, seed) not in {(row["variant"], row["seed"]) for row in _rows(options.results)}:
                row = _run(options.out, corpus, name, seed)
                with options.results.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
    _print(_rows(options.results))


def _rows(results: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()] if results.is_file() else []


def _run(out: Path, corpus: Path, name: str, seed: int) -> dict[str, Any]:
    folder = out / f"{name.replace(' ', '-').replace(',', '')}-{seed}"
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was stopped: its seconds would not be its own
    started = time.monotonic()
    overrides = (f"corpus.path={corpus}", f"train.path={folder / 'train'}", f"seed={seed}", "train.track=[]")
    _caspi("train", str(ROOT / "recipes" / "demo.yaml"), *overrides, *VARIANTS[name])
    seconds = time.monotonic() - started
    trained = json.loads((folder / "train" / "report.json").read_text(encoding="utf-8"))
    row = {
        "variant": name, "seed": seed, "overrides": VARIANTS[name], "train_seconds": round(seconds, 1),
        "revision": trained["environment"]["revision"], "validation": trained["stages"][-1]["checkpoints"][-1],
    }  # fmt: skip
    row["validation"].pop("path")
    _caspi("average", str(folder / "train"))
    for what, model in (("last", trained["final"]), ("average", str(folder / "train" / "average"))):
        _caspi("evaluate", model, str(corpus), "--split", "test", "--out", str(folder / what))
        summary = json.loads((folder / what / "summary.json").read_text(encoding="utf-8"))
        row[what] = {key: summary["leaderboard"][key] for key in ("wer", "wer_ci", "cer")}
    shutil.rmtree(folder)
    return row


def _caspi(*arguments: str) -> None:
    done = subprocess.run([sys.executable, "-m", "caspi", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"caspi {' '.join(arguments)} failed:\n{done.stderr[-3000:]}")


# Of Student's distribution, two-sided 95 %, by degrees of freedom.
_T = {1: 12.71, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}


def _print(rows: list[dict[str, Any]]) -> None:
    found: defaultdict[str, dict[int, dict[str, Any]]] = defaultdict(dict)
    for row in rows:
        found[row["variant"]][row["seed"]] = row
    baseline = found.get("baseline", {})
    print("| variant | seeds | test WER, mean (each) | to baseline, 95 % | averaged | validation loss | train s |")
    print("|---|---|---|---|---|---|---|")
    for name, runs in found.items():
        each = [run["last"]["wer"] for run in runs.values()]
        apart = [run["last"]["wer"] - baseline[seed]["last"]["wer"] for seed, run in runs.items() if seed in baseline]
        averaged = statistics.mean(run["average"]["wer"] for run in runs.values())
        loss = statistics.mean(run["validation"]["loss"] for run in runs.values())
        seconds = statistics.median(run["train_seconds"] for run in runs.values())
        print(
            f"| {name} | {len(runs)} | {statistics.mean(each):.4f} ({', '.join(f'{wer:.3f}' for wer in each)}) | "
            f"{_interval(apart)} | {averaged:.4f} | {loss:.4f} | {seconds:.0f} |"
        )


def _interval(apart: list[float]) -> str:
    if len(apart) < 2 or not any(apart):
        return "-"
    half = _T[len(apart) - 1] * statistics.stdev(apart) / len(apart) ** 0.5
    return f"{statistics.mean(apart):+.4f} ± {half:.4f}"


if __name__ == "__main__":
    main()
