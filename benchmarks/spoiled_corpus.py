"""Makes a copy of a corpus in which a share of the transcripts of a split is faulty.

    python benchmarks/spoiled_corpus.py CORPUS OUT [--split train] [--share 0.2] [--seed 0]

The faults are those of `caspi audit` (src/caspi/audit/faults.py), each kind equally often. `faults.jsonl` in the new
corpus says which rows have which fault.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pyarrow as pa

from caspi import atomic_output, audio
from caspi.audit.faults import FAULTS, Case, Surroundings, spoiled, texts_of_similar_length
from caspi.corpus.dedup import acoustic_fingerprint
from caspi.corpus.derived import link
from caspi.corpus.store import SCHEMA, Corpus, ShardWriter, row
from caspi.corpus.utterance import SPLITS
from caspi.randomness import seeded


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--split", choices=SPLITS, default="train")
    parser.add_argument("--share", type=float, default=0.2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    corpus = Corpus.open(options.corpus, options.split)
    draw = seeded(options.seed)
    chosen = draw.permutation(len(corpus))[: round(options.share * len(corpus))].tolist()
    kind_of = {number: list(FAULTS)[n % len(FAULTS)] for n, number in enumerate(chosen)}
    others = texts_of_similar_length(corpus.column("text"))
    partial = atomic_output.begin_atomic(options.out, "prepare")
    writer = ShardWriter(partial, options.split)
    made: list[dict[str, object]] = []
    for number in range(len(corpus)):
        utterance, samples = corpus.utterance(number), corpus.samples(number)
        if number in kind_of:
            case = _fault(corpus, number, kind_of[number], others[number], seed=options.seed)
            samples = case.samples
            utterance = type(utterance)(
                utterance.id,
                case.text,
                len(samples) / 16_000,
                utterance.source,
                utterance.group,
                signals=utterance.signals,
            )
            made.append({"row": number, "fault": case.fault})
        pcm = audio.pcm16(samples)
        line = row(utterance, audio.encode_flac(pcm), acoustic_fingerprint.exact(pcm))
        writer.write(pa.RecordBatch.from_pylist([{**line, "position": number}], SCHEMA))
    writer.close()
    for path in options.corpus.glob("*.arrow"):
        if not path.name.startswith(f"{options.split}-"):
            link(path, partial / path.name)
    report = atomic_output.report_of(options.corpus)
    report["splits"][options.split]["fingerprint"] = writer.fingerprint
    (partial / atomic_output.REPORT).write_text(json.dumps(report), encoding="utf-8")
    (partial / "faults.jsonl").write_text("".join(json.dumps(one, ensure_ascii=False) + "\n" for one in made), "utf-8")
    atomic_output.commit_atomic(partial, options.out)


def _fault(corpus: Corpus, number: int, kind: str, other: str, seed: int) -> Case:
    """The row with a fault: of the kind, or of the next one that it can have."""
    utterance = corpus.utterance(number)
    own = Case(corpus.samples(number), utterance.text, utterance.language)
    following = corpus.utterance((number + 1) % len(corpus)).text
    around = Surroundings(other, following, corpus.samples(number - 1 if number else len(corpus) - 1))
    kinds = list(FAULTS)
    for step in range(len(kinds)):
        case = spoiled(own, kinds[(kinds.index(kind) + step) % len(kinds)], around, seeded(seed, number))
        if case is not None:
            return case
    raise SystemExit(f"row {number} can have no fault")


if __name__ == "__main__":
    main()
