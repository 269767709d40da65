"""Whether the labels that `caspi label` keeps are as right as it says, on speech whose transcripts are hidden from it.

    python benchmarks/label_precision.py A B [--known 200] [--hidden 800] [--precision 0.9] [--snr 0 15]

Hebrew sentences by voices that recipes/demo.yaml does not train on, with white noise; A and B are recognisers. Prints
one JSON line: the share of the speech that is labelled, the share of these labels that is right (character error rate
of at most 10 %), and the character error rates of all hypotheses of A, and of those kept.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
from rapidfuzz.distance import Levenshtein

from caspi import commands
from caspi.audit.label import LabelConfig
from caspi.corpus.derived import CorpusWriter
from caspi.corpus.sources.synthetic import SyntheticSource
from caspi.corpus.utterance import Utterance
from caspi.language import language
from caspi.randomness import seeded

_VOICES = ("max", "linda", "steph2", "f2", "m3", "Andrea", "Denis", "michel")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs=2)
    parser.add_argument("--known", type=int, default=200)
    parser.add_argument("--hidden", type=int, default=800)
    parser.add_argument("--precision", type=float, default=0.9)
    parser.add_argument("--snr", type=float, nargs=2, default=(0.0, 15.0), help="dB, lowest and highest")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="caspi-bench-") as name:
        folder = Path(name)
        _corpus(folder / "known", options.known, 71, options.snr)
        truth = _corpus(folder / "hidden", options.hidden, 72, options.snr)
        commands.label.run(
            [folder / "hidden"], options.models, folder / "known", folder / "out",
            LabelConfig(precision=options.precision), known_split="train",
        )  # fmt: skip
        lines = [json.loads(line) for line in (folder / "out" / "labels.jsonl").read_text("utf-8").splitlines()]
        report = json.loads((folder / "out" / "report.json").read_text("utf-8"))
    normalised = language("Hebrew").normalisers["fair"]
    pairs = [(normalised(truth[line["id"]]), normalised(line["texts"][0])) for line in lines]
    rates = np.array([Levenshtein.distance(one, other) / max(1, len(one)) for one, other in pairs])
    kept = np.array([line["reason"] is None for line in lines])
    seconds = np.array([line["seconds"] for line in lines])
    print(json.dumps({
        "clips": len(lines), "kept": int(kept.sum()), "coverage": float(seconds[kept].sum() / seconds.sum()),
        "right": float((rates[kept] <= LabelConfig().right_below).mean()), "right_of_all": float((rates <= 0.1).mean()),
        "cer_kept": float(rates[kept].mean()), "cer_all": float(rates.mean()), "rejected": report["rejected"],
        "threshold": report["threshold"],
    }))  # fmt: skip


def _corpus(folder: Path, count: int, seed: int, snr: tuple[float, float]) -> dict[str, str]:
    """A corpus of noisy sentences; returns the text of every id."""
    source = SyntheticSource(
        kind="synthetic", utterances=count, seed=seed, only=_VOICES, rate=(140, 220), sentences=(0.9, 1.0)
    )
    folder.mkdir()
    writer, draw, texts = CorpusWriter(folder), seeded(seed), {}
    for recording in source.recordings("Hebrew"):
        stream, _ = recording.audio.open()
        samples = np.concatenate(list(stream.blocks))
        level = np.sqrt(np.mean(samples**2)) * 10 ** (-draw.uniform(*snr) / 20)
        samples = np.clip(samples + draw.standard_normal(len(samples)) * level, -1, 1).astype(np.float32)
        writer.add(Utterance(recording.id, recording.text, 0.0, "synthetic", recording.group, synthetic=True), samples)
        texts[recording.id] = recording.text
    report = {"stage": "prepare", **writer.finish()}
    (folder / "report.json").write_text(json.dumps(report), encoding="utf-8")
    return texts


if __name__ == "__main__":
    main()
