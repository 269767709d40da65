"""Ablation study of training methods: same steps on the same audio, several seeds, WER with confidence intervals.

    python benchmarks/wind_tunnel.py [--corpus demo|torah] [--seeds 0 1 2] [--only NAME ...] [--jobs N] [key=value ...]

Every variant is the recipe of the chosen corpus with plain AdamW and a few values changed. All variants train for the
same number of steps on the same corpus, from the same start. Distillation and the sequence objective take longer per
step, as the column of seconds shows, and the two variants with a slow end train for a tenth more steps. Each run is
evaluated on the test split with `caspi evaluate`. The averaged models of the demo are also evaluated with `--stress`
(a column with the mean over its conditions, because a method can improve these without improving the clean test), and
the variants that differ in context with `--context` (a second table).

Each run appends a line to `--results`; runs that have a line are not repeated, so the command can be stopped and
started again. Jobs share the cores equally and are distributed over the GPUs. Finally prints a table: means over seeds,
and differences to `baseline` with the same seeds, with the interval of a paired t-test.
"""

from __future__ import annotations

import argparse
import copy
import functools
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from caspi import recipe

ROOT = Path(__file__).parents[1]
_SLOWER = 0.1  # factor on the learning rates in the added last stage
_LORA = {"lr": 4e-3, "lora": {"rank": 16, "alpha": 32, "dropout": 0.1}}


@dataclass(frozen=True, slots=True)
class Variant:
    """Differences from the baseline. last: values of its last stage (`a.b` is b of a). overrides: values of the recipe.
    end: the objective of an added stage, a tenth as long as the last one and at a tenth of its learning rates."""

    last: dict[str, Any] = field(default_factory=dict)
    overrides: tuple[str, ...] = ()
    end: dict[str, Any] | None = None
    one_stage: bool = False


def _augment(what: str) -> Variant:
    return Variant(overrides=(f"train.augment.{what}",))


_BASIS: dict[str, Any] = {
    "optimizer": "adamw", "groups.audio_layers": {"lr": 1e-3}, "groups.decoder_layers": {"lr": 1e-3}
}  # fmt: skip
_TWICE = {"groups.audio_layers": {"lr": 2e-3}, "groups.decoder_layers": {"lr": 2e-3}}
_NORMUON = {"optimizer": "normuon"} | _TWICE
_HOTWORDS = "train.hotwords={at_most: 1000}"
_TEACHER = "TEACHER"  # the same model, trained with the best variant for that corpus
_DISTILLED = {"objective": {"kind": "distillation", "teacher": _TEACHER}}
_BEST = {"demo": "normuon, twice the rate", "torah": "no SpecAugment"}
VARIANTS = {
    "baseline": Variant(),
    "one stage": Variant(
        one_stage=True
    ),  # without gradual unfreezing: the demo's recipe first trains only the new letters
    "lora": Variant({"groups.audio_layers": _LORA, "groups.decoder_layers": _LORA}),
    "muon": Variant({"optimizer": "muon"}),
    "normuon": Variant({"optimizer": "normuon"}),
    "muon, twice the rate": Variant({"optimizer": "muon"} | _TWICE),
    "normuon, twice the rate": Variant(_NORMUON),
    "normuon, twice the rate, no SpecAugment": Variant(_NORMUON, ("train.augment.spec_augment=null",)),
    "normuon, twice the rate, hotwords": Variant(_NORMUON, (_HOTWORDS,)),
    "adamw, twice the rate": Variant(_TWICE),
    "ema": Variant({"ema": 0.98}),
    "no augmentation": Variant(overrides=("train.augment={}",)),
    "no SpecAugment": _augment("spec_augment=null"),
    "no gain": _augment("gain_db=null"),
    "no noise": _augment("noise=null"),
    "noise": _augment("noise={snr_db: [15, 50]}"),
    "speed": _augment("speed=[0.9, 1.0, 1.1]"),
    "silence": _augment("silence={}"),
    "second speaker": _augment("second_speaker={}"),
    "reverberation": _augment("reverberation={}"),
    "clipping": _augment("clipping={}"),
    "codec": _augment("codec={}"),
    "hotwords": Variant(overrides=(_HOTWORDS,)),
    "previous text": Variant(overrides=("train.previous_text=0.5",)),
    "distillation": Variant(_DISTILLED),
    "distillation, no SpecAugment": Variant(_DISTILLED, ("train.augment.spec_augment=null",)),
    "slow end": Variant(end={"kind": "cross_entropy"}),  # the baseline for the next one
    "slow end, sequence": Variant(end={"kind": "sequence"}),
}
_COMES_FIRST = {
    "distillation": 0,
    "distillation, no SpecAugment": 0,
    "slow end, sequence": 1,
}  # starts the longest runs first
_CONTEXTS = ("baseline", "hotwords", "previous text", "normuon, twice the rate", "normuon, twice the rate, hotwords")
_TOLD = 1_000  # at most this many utterances are evaluated with context
_STRESSED = {"demo": 50}  # utterances in each condition of the stress set; not for torah, whose WER is near 1 anyway
_WITHOUT = {
    "demo": {"noise", "previous text"},
    "torah": {"one stage", "no noise"},
}  # already in the recipe, or not possible with it


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", choices=list(_WITHOUT), default="demo")
    parser.add_argument("--out", type=Path, default=Path("runs/wind"))
    parser.add_argument("--results", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", choices=list(VARIANTS))
    parser.add_argument("--jobs", type=int, default=1, help="number of parallel runs")
    parser.add_argument("overrides", nargs="*", help="overrides for every run and for the corpus")
    options = parser.parse_intermixed_args()
    results = options.results or ROOT / "benchmarks" / "results" / f"wind_tunnel-{options.corpus}.jsonl"
    tunnel = Tunnel(options.corpus, options.out, results, tuple(options.overrides))
    named = options.only or [name for name in VARIANTS if name not in _WITHOUT[options.corpus]]
    if others := [row["given"] for row in _rows(results) if row["given"] != tunnel.given]:
        sys.exit(f"{results} holds runs with other overrides ({others[0]}): give another file with --results")
    tunnel.make_ready()
    done = {(row["variant"], row["seed"]) for row in _rows(results)}
    todo = [(name, seed) for seed in options.seeds for name in named if (name, seed) not in done]
    todo.sort(key=lambda run: _COMES_FIRST.get(run[0], len(_COMES_FIRST)))
    jobs = itertools.count()
    with ThreadPoolExecutor(options.jobs, initializer=lambda: _take_place(next(jobs), options.jobs)) as pool:
        for finished in [pool.submit(tunnel.run, name, seed) for name, seed in todo]:
            finished.result()
    _print(_rows(results))
    _print_contexts(_rows(results))


class Tunnel:
    """Runs of one recipe, all from the same start and on the same corpus."""

    def __init__(self, name: str, out: Path, results: Path, overrides: tuple[str, ...]) -> None:
        self._name, self._recipe = name, ROOT / "recipes" / f"{name}.yaml"
        self._out, self._results = out / name, results
        self.given = list(overrides)
        self._common = (f"corpus.path={self._out / 'corpus'}", *overrides)
        written = recipe.load(self._recipe).require_train()
        self._stages = [stage.model_dump(mode="json", exclude_unset=True) for stage in written.stages]
        self._writing, self._teaching = threading.Lock(), threading.Lock()

    def make_ready(self) -> None:
        """Prepares the corpus."""
        _caspi("prepare", str(self._recipe), *self._common)

    def _teach(self) -> None:
        """Trains the teacher, once."""
        with self._teaching:
            if not (self._teacher / "config.json").is_file():
                self._train(self._teacher.parents[1], "seed=100", *self._overrides(VARIANTS[_BEST[self._name]]))
                _caspi("average", str(self._teacher.parent))

    @property
    def _teacher(self) -> Path:
        return self._out / "teacher" / "train" / "average"

    def _overrides(self, variant: Variant) -> tuple[str, ...]:
        stages = copy.deepcopy(self._stages)
        for path, value in (_BASIS | variant.last).items():
            *outer, name = path.split(".")
            place = functools.reduce(lambda inside, key: inside[key], outer, stages[-1])
            place[name] = value
        if variant.one_stage:
            stages = [stages[-1] | {"epochs": sum(stage["epochs"] for stage in stages)}]
        if variant.end is not None:
            rates = {group: how | {"lr": how["lr"] * _SLOWER} for group, how in stages[-1]["groups"].items()}
            end = {"name": "end", "epochs": 0.1 * stages[-1]["epochs"], "groups": rates, "objective": variant.end}
            stages.append(stages[-1] | end)
        return (f"train.stages={json.dumps(stages).replace(_TEACHER, str(self._teacher))}", *variant.overrides)

    def _train(self, folder: Path, *overrides: str) -> None:
        where = (f"train.path={folder / 'train'}", "train.track=[]")
        _caspi("train", str(self._recipe), *self._common, *where, *overrides)

    def run(self, name: str, seed: int) -> None:
        """Trains, evaluates the last checkpoint and the average of the best ones, and writes a line of results."""
        folder = self._out / f"{name.replace(' ', '-').replace(',', '')}-{seed}"
        shutil.rmtree(
            folder, ignore_errors=True
        )  # of an interrupted run: if it were resumed, its measured seconds would be wrong
        if VARIANTS[name].last == _DISTILLED:
            self._teach()
        started = time.monotonic()
        overrides = self._overrides(VARIANTS[name])
        self._train(folder, f"seed={seed}", *overrides)
        seconds = time.monotonic() - started
        trained = json.loads((folder / "train" / "report.json").read_text(encoding="utf-8"))
        row = {
            "variant": name, "seed": seed, "given": self.given, "overrides": overrides,
            "train_seconds": round(seconds, 1),
            "revision": trained["environment"]["revision"], "validation": trained["stages"][-1]["checkpoints"][-1],
        }  # fmt: skip
        row["validation"].pop("path")
        _caspi("average", str(folder / "train"))
        for what, model in (("last", trained["final"]), ("average", str(folder / "train" / "average"))):
            stressed = _STRESSED.get(self._name)
            more = ["--stress", str(stressed)] if what == "average" and stressed else []
            more += ["--context", str(_TOLD)] if what == "last" and name in _CONTEXTS else []
            _caspi("evaluate", model, str(self._out / "corpus"), "--split", "test", "--out", str(folder / what), *more)
            summary = json.loads((folder / what / "summary.json").read_text(encoding="utf-8"))
            row[what] = {key: summary["leaderboard"][key] for key in ("wer", "wer_ci", "cer")}
            if "context" in summary:
                row["context"] = summary["context"]
            if "stress" in summary:
                found = {name: how["wer"] for name, how in summary["stress"]["conditions"].items() if name != "clean"}
                row["stress"] = found | {"mean": statistics.mean(found.values())}
        shutil.rmtree(folder)
        with self._writing, self._results.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def _rows(results: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()] if results.is_file() else []


_place = threading.local()


def _take_place(job: int, jobs: int) -> None:
    """Gives the runs of this thread their share of the cores, and one GPU if there are any."""
    _place.environment = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // jobs))}
    if torch.cuda.is_available():
        _place.environment["CUDA_VISIBLE_DEVICES"] = str(job % torch.cuda.device_count())


def _caspi(*arguments: str) -> None:
    command, environment = [sys.executable, "-m", "caspi", *arguments], os.environ | getattr(_place, "environment", {})
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        sys.exit(f"caspi {' '.join(arguments)} failed:\n{done.stderr[-3000:]}")


# Quantiles of Student's distribution, two-sided 95 %, by degrees of freedom.
_T = {1: 12.71, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}


def _print(rows: list[dict[str, Any]]) -> None:
    found: defaultdict[str, dict[int, dict[str, Any]]] = defaultdict(dict)
    for row in sorted(rows, key=lambda row: row["seed"]):
        found[row["variant"]][row["seed"]] = row
    baseline = found.get("baseline", {})
    print(
        "| variant | seeds | test WER, mean (each) | vs baseline | averaged | averaged, stress set | vs baseline "
        "| validation loss | vs baseline | train s |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    ranked = sorted(found.items(), key=lambda row: statistics.mean(run["last"]["wer"] for run in row[1].values()))
    for name, runs in ranked:
        wers = [run["last"]["wer"] for run in runs.values()]
        losses = [run["validation"]["loss"] for run in runs.values()]
        paired = [(run, baseline[seed]) for seed, run in runs.items() if seed in baseline]
        to_wer = _interval([run["last"]["wer"] - base["last"]["wer"] for run, base in paired])
        to_loss = _interval([run["validation"]["loss"] - base["validation"]["loss"] for run, base in paired])
        averaged = statistics.mean(run["average"]["wer"] for run in runs.values())
        stressed = [run["stress"]["mean"] for run in runs.values() if "stress" in run]
        apart = [run["stress"]["mean"] - base["stress"]["mean"] for run, base in paired if "stress" in run]
        seconds = statistics.median(run["train_seconds"] for run in runs.values())
        print(
            f"| {name} | {len(runs)} | {statistics.mean(wers):.4f} "
            f"({', '.join(f'{wer:.3f}' for wer in wers)}) | {to_wer} | {averaged:.4f} | "
            f"{f'{statistics.mean(stressed):.4f}' if stressed else '-'} | {_interval(apart)} | "
            f"{statistics.mean(losses):.4f} | {to_loss} | {seconds:.0f} |"
        )


def _print_contexts(rows: list[dict[str, Any]]) -> None:
    print("\n| variant | context | seeds | test WER, mean (each) | hotwords recognised | distractors recognised |")
    print("|---|---|---|---|---|---|")
    found: defaultdict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: (row["variant"], row["seed"])):
        for shown, of in row.get("context", {}).items():
            found[row["variant"], shown].append(of)
    for (name, shown), runs in found.items():
        wers = [run["wer"] for run in runs]
        heard = [sum(r[k]["heard"] for r in runs) / sum(r[k]["words"] for r in runs) for k in ("expected", "others")]
        print(
            f"| {name} | {shown} | {len(runs)} | {statistics.mean(wers):.4f} "
            f"({', '.join(f'{wer:.3f}' for wer in wers)}) | {heard[0]:.4f} | {heard[1]:.4f} |"
        )


def _interval(apart: list[float]) -> str:
    if len(apart) < 2 or not any(apart):
        return "-"
    half = _T[len(apart) - 1] * statistics.stdev(apart) / len(apart) ** 0.5
    return f"{statistics.mean(apart):+.4f} ± {half:.4f}"


if __name__ == "__main__":
    main()
