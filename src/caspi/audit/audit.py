"""What the losses of a recogniser can prove about a corpus.

For every sampled utterance, the audit computes the model's loss per token on its own transcript, on the transcript of
another utterance, and on its own without the second half of the words. The rate at which another transcript has the
higher loss bounds the share of wrong transcripts in the corpus: against a wrong transcript, this happens only half of
the time, for any model. A low rate may be caused by the corpus or by the model; the audit cannot tell which. The rate
for half transcripts only shows whether this model detects missing words: a corpus of only halves would look the same.
So the audit says neither PROCEED nor STOP.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from pydantic import Field

from caspi.audio import Seconds
from caspi.config import Config
from caspi.corpus.store import Corpus
from caspi.model.batch import Item, collate
from caspi.model.forward import label_logits
from caspi.model.loading import LoadedModel
from caspi.model.tensors import to_device
from caspi.progress import Progress
from caspi.randomness import seeded
from caspi.reporting.wording import percent

CAUTION = "CAUTION"


class AuditConfig(Config):
    """sample: number of utterances of each source."""

    sample: int = Field(300, ge=10)
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Bounds:
    """What the losses of some utterances prove. discernment: how often another transcript has the higher loss.
    discernment_of_halves: the same for half transcripts. at_most: upper bound (95 %) for the share of transcripts that
    belong to other utterances."""

    discernment: float
    discernment_of_halves: float
    at_most: float


@dataclass(frozen=True, slots=True)
class AuditedUtterance:
    """Losses are per token: of its own transcript, of another utterance's, of its own without the second half."""

    id: str
    source: str
    text: str
    seconds: Seconds
    characters_per_second: float
    loss: float
    wrong_text_loss: float
    halved_text_loss: float


@dataclass(frozen=True, slots=True)
class AuditReport:
    """The content of alignment_report.json. strata: source -> number of sampled utterances and their bounds."""

    decision: str
    reason: str
    sampled: int
    whole: Bounds
    strata: dict[str, tuple[int, Bounds]]
    utterances: list[AuditedUtterance]

    def as_json(self) -> dict[str, Any]:
        return {
            "decision": self.decision,
            "reason": self.reason,
            "sampled": self.sampled,
            **asdict(self.whole),
            "low_quality_fraction": None,  # a bound is not an estimate
            "low_quality_interval": (0.0, self.whole.at_most),
            "strata": {name: {"sampled": sampled, **asdict(bounds)} for name, (sampled, bounds) in self.strata.items()},
            "utterances": [asdict(utterance) for utterance in self.utterances],
        }


def audit(corpus: Corpus, loaded: LoadedModel, config: AuditConfig) -> AuditReport:
    """Audits a sample of every source."""
    rows = _sample(corpus, config)
    utterances = [corpus.utterance(row) for row in rows]
    swapped = _wrong_texts([u.text for u in utterances])
    losses: list[list[float]] = []
    with Progress("audit", unit="utterances", total=len(rows)) as progress:
        for row, utterance, other in zip(rows, utterances, swapped, strict=True):
            samples = corpus.samples(row)
            texts = (utterance.text, other, _halved(utterance.text))
            items = [Item(samples, text, utterance.language, utterance.context) for text in texts]
            losses.append(token_losses(loaded, items))
            progress.advance(1)
    table = np.array(losses)
    sources: defaultdict[str, list[int]] = defaultdict(list)
    for place, utterance in enumerate(utterances):
        sources[utterance.source].append(place)
    whole = _bounds(table, config.seed)
    return AuditReport(
        decision=CAUTION,
        reason=f"at most {percent(whole.at_most)} of the transcripts belong to other utterances; missing or added "
        "words are not checked: listen to the worst-fitting utterances",
        sampled=len(rows),
        whole=whole,
        strata={
            source: (len(places), _bounds(table[places], config.seed)) for source, places in sorted(sources.items())
        },
        utterances=[
            AuditedUtterance(u.id, u.source, u.text, u.seconds, len(u.text) / u.seconds, *of_each)
            for u, of_each in zip(utterances, losses, strict=True)
        ],
    )


def _halved(text: str) -> str:
    """The text without the second half of its words; a single word becomes empty."""
    words = text.split()
    return " ".join(words[: len(words) // 2])


def _bounds(table: np.ndarray, seed: int) -> Bounds:
    """From losses [utterances, 3]: how often a corrupted text has a higher loss than the utterance's own, over all
    pairs, and the resulting bound. With a share w of wrong transcripts, at most 1 - w / 2 of the pairs can be right."""
    draw = seeded(seed)
    drawn = [draw.integers(0, len(table), len(table)) for _ in range(200)]
    again = [discernment(table[places, 0], table[places, 1]) for places in drawn]
    return Bounds(
        discernment=discernment(table[:, 0], table[:, 1]),
        discernment_of_halves=discernment(table[:, 0], table[:, 2]),
        at_most=min(1.0, 2 * (1 - float(np.quantile(again, 0.05)))),
    )


def _sample(corpus: Corpus, config: AuditConfig) -> list[int]:
    """Up to `sample` rows of every source, in corpus order."""
    by_source: defaultdict[str, list[int]] = defaultdict(list)
    for row, source in enumerate(corpus.column("source")):
        by_source[source].append(row)
    draw = seeded(config.seed)
    chosen: list[int] = []
    for members in by_source.values():
        chosen += draw.permutation(members)[: config.sample].tolist()
    return sorted(chosen)


def _wrong_texts(texts: Sequence[str]) -> list[str]:
    """For every text, the text of the utterance with the most similar length, so that length is no cue."""
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    wrong = list(texts)
    for place, index in enumerate(order):
        others = (order[(place + step) % len(order)] for step in range(1, len(order)))
        wrong[index] = next((texts[other] for other in others if texts[other] != texts[index]), "")
    return wrong


@torch.no_grad()
def token_losses(loaded: LoadedModel, items: Sequence[Item]) -> list[float]:
    """Mean cross-entropy of the text tokens of each item, without the language tokens before them."""
    device = next(loaded.model.parameters()).device
    batch = to_device(collate(items, loaded.prompt), device)
    losses = torch.nn.functional.cross_entropy(
        label_logits(loaded.model, batch).float(), batch.labels, reduction="none"
    )
    result, at = [], 0
    for item in items:
        length = int(loaded.prompt.target_lengths([item.text], [item.language])[0])
        head = len(loaded.prompt.language_prefix(item.language))
        result.append(float(losses[at + head : at + length].mean()))
        at += length
    return result


def discernment(right: Sequence[float] | np.ndarray, wrong: Sequence[float] | np.ndarray) -> float:
    """Area under the ROC curve: the chance that a wrong transcript has the higher loss."""
    ordered = np.sort(np.asarray(right))
    below = np.searchsorted(ordered, wrong, side="left") + np.searchsorted(ordered, wrong, side="right")
    return float(below.sum() / (2 * len(right) * len(wrong)))
