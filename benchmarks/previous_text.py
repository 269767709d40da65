"""Long recordings with and without the text of the window before in the system turn.

python benchmarks/previous_text.py MODEL CORPUS [--seconds 120]

Joins the test utterances of each group to recordings of about `--seconds` with pauses of 0.7 s, and prints the word
error rate of both ways of decoding them, with intervals over groups.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from caspi.audio import SAMPLE_RATE
from caspi.corpus.store import Corpus
from caspi.inference.decoding_options import DecodingOptions
from caspi.inference.transcriber import Recording, Transcriber
from caspi.language import language
from caspi.reporting.wording import rate
from caspi.scoring.error_rates import score_corpus

_PAUSE = np.zeros(int(0.7 * SAMPLE_RATE), np.float32)


def joined(corpus: Corpus, seconds: float) -> Iterator[tuple[np.ndarray, str, str]]:
    """(samples, text, group) of every recording."""
    groups = corpus.column("group")
    for group in sorted(set(groups)):
        parts: list[np.ndarray] = []
        texts: list[str] = []
        for row in [row for row, of in enumerate(groups) if of == group]:
            parts += [corpus.samples(row), _PAUSE]
            texts.append(corpus.utterance(row).text)
            if sum(map(len, parts)) >= seconds * SAMPLE_RATE:
                yield np.concatenate(parts), " ".join(texts), group
                parts, texts = [], []
        if parts:
            yield np.concatenate(parts), " ".join(texts), group


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--seconds", type=float, default=120.0)
    given = parser.parse_args()
    corpus = Corpus.open(given.corpus, "test")
    spoken = corpus.utterance(0).language
    samples, texts, groups = zip(*joined(corpus, given.seconds), strict=True)
    transcriber = Transcriber.of(given.model)
    print(f"{len(texts)} recordings, {sum(map(len, samples)) / SAMPLE_RATE:.0f} s")
    for name, options in (("without", DecodingOptions()), ("with", DecodingOptions(previous_text=True))):
        said = transcriber.transcribe([Recording(one, spoken, decoding=options) for one in samples])
        hypotheses = [transcript.text for transcript in said]
        score = score_corpus(texts, hypotheses, groups, [language(spoken)] * len(texts))["leaderboard"]
        looping = sum(transcript.looping for transcript in said)
        print(f"{name} previous text: WER {rate(score.wer, score.wer_ci)}, {looping} looping windows")


if __name__ == "__main__":
    main()
