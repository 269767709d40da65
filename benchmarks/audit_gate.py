"""What `caspi audit` decides about corpora with a known share of faulty transcripts.

    python benchmarks/audit_gate.py CORPUS --aligner MODEL --asr MODEL [--utterances 600] [--sample 300] [--draws 10]

The signals of some utterances are measured once, with their own transcripts and with every kind of fault. A corpus with
a share of faulty transcripts is then a draw of utterances of which that share has the signals of a fault, each kind
equally often; the faults that calibrate it are those of the others. Prints a line for every share: decisions, the mean
estimate, and how often the interval holds the true share.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np

from caspi.audit.audit import AuditConfig, decision
from caspi.audit.calibration import Sampled, calibrated, scored
from caspi.audit.faults import FAULTS
from caspi.audit.measurements import MadeFault, measurements
from caspi.audit.sampling import Sampling, sample
from caspi.audit.signals import Listeners, Signals
from caspi.corpus.store import Corpus
from caspi.randomness import seeded

_SHARES = (0.0, 0.05, 0.12, 0.20, 0.40)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--aligner")
    parser.add_argument("--asr", action="append", default=[])
    parser.add_argument("--split", default="train")
    parser.add_argument("--utterances", type=int, default=600)
    parser.add_argument("--sample", type=int, default=300)
    parser.add_argument("--draws", type=int, default=10)
    options = parser.parse_args()
    corpus = Corpus.open(options.corpus, options.split)
    rows = sample(corpus, Sampling(share=1e-9, at_least=options.utterances))
    listeners = Listeners.of(options.aligner, options.asr)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        own, made = measurements(corpus, rows, listeners, Path(folder) / "signals.jsonl", 0, faults_each=len(FAULTS))
    print(json.dumps({"utterances": len(own), "faults": len(made), "seconds": time.monotonic() - began}), flush=True)
    faults_of: defaultdict[int, list[MadeFault]] = defaultdict(list)
    for fault in made:
        faults_of[fault.number].append(fault)
    for share in _SHARES:
        print(json.dumps(_decided(own, faults_of, share, options.sample, options.draws)), flush=True)


def _decided(
    own: list[Signals], faults_of: dict[int, list[MadeFault]], share: float, size: int, draws: int
) -> dict[str, object]:
    decisions: Counter[str] = Counter()
    estimates, held, recalls = [], 0, defaultdict(list)
    for draw in range(draws):
        random = seeded(round(1000 * share), draw)
        chosen = random.permutation(len(own))[:size].tolist()
        spoiled = set(random.permutation(size)[: round(share * size)].tolist())
        mine, calibrating = [], []
        for place, number in enumerate(chosen):
            faults = faults_of[number]
            shown = [faults[n] for n in random.permutation(len(faults))[:4]]
            mine.append(shown[0].signals if place in spoiled else own[number])
            calibrating += [replace(fault, number=place) for fault in shown[1:]]
        found = calibrated(scored(mine, calibrating), Sampled.alike(size))
        decisions[decision(found, AuditConfig())[0]] += 1
        for kind, recall in found.recall.items():
            recalls[kind].append(recall)
        if found.faulty is not None:
            estimates.append(found.faulty.share)
            held += found.faulty.low <= share <= found.faulty.high
    return {
        "faulty": share, "decisions": dict(decisions), "estimate": float(np.mean(estimates)) if estimates else None,
        "interval_holds": held, "recall": {kind: round(float(np.mean(some)), 3) for kind, some in recalls.items()},
    }  # fmt: skip


if __name__ == "__main__":
    main()
