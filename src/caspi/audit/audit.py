"""Is this corpus worth training on? What a recogniser's losses can prove of it, and nothing more.

Every sampled utterance is scored by the model's loss per token on its own transcript, on another utterance's, and on
its own with the second half of the words left out. How often the spoilt text looks worse is a bound on how many
transcripts are spoilt in that way already: against one of these it looks worse half of the time only, whatever the
model. A low figure may be the corpus' fault or the model's, and the audit cannot tell which: it then says so.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from pydantic import Field

from caspi.config import Config
from caspi.corpus.store import Corpus
from caspi.model.loading import Loaded
from caspi.model.moving import on
from caspi.progress import Progress
from caspi.training.collation import Item, collate
from caspi.training.objectives import label_logits

PROCEED, CAUTION, STOP = "PROCEED", "CAUTION", "STOP"
_KINDS = ("swapped", "halved")


class AuditConfig(Config):
    """sample: utterances of each source. caution: share of spoilt transcripts up to which the gate says PROCEED, where
    it is proved that there are no more of either kind."""

    sample: int = Field(300, ge=10)
    caution: float = Field(0.10, gt=0, lt=1)
    seed: int = 0


def audit(corpus: Corpus, loaded: Loaded, config: AuditConfig) -> dict[str, Any]:
    """The content of alignment_report.json. `at_most`: of each kind, the share of spoilt transcripts that there are no
    more of (95 %)."""
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
    decision, reason = _decide(whole, config)
    return {
        "decision": decision,
        "reason": reason,
        "sampled": len(rows),
        **whole,
        "low_quality_fraction": None,  # a bound is no estimate
        "low_quality_interval": (0.0, max(whole["at_most"].values())),
        "strata": {
            source: {"sampled": len(places), **_bounds(table[places], config.seed)}
            for source, places in sorted(sources.items())
        },
        "utterances": [
            {
                "id": u.id,
                "source": u.source,
                "text": u.text,
                "seconds": u.seconds,
                "characters_per_second": len(u.text) / u.seconds,
                "loss": own,
                "wrong_text_loss": not_own,
                "halved_text_loss": halved,
            }
            for u, (own, not_own, halved) in zip(utterances, losses, strict=True)
        ],
    }


def _halved(text: str) -> str:
    """Without the second half of its words; a single word has none to spare and becomes nothing."""
    words = text.split()
    return " ".join(words[: len(words) // 2])


def _bounds(table: np.ndarray, seed: int) -> dict[str, dict[str, float]]:
    """Of losses [utterances, 3]: how often a spoilt text looks worse than an utterance's own, over all pairs, and the
    bound that follows. With a share w spoilt already, half of the pairs of one of these and of a right one's spoilt
    text come out right, so at most 1 - w (1 - w) / 2 of all."""
    found: dict[str, dict[str, float]] = {"discernment": {}, "at_most": {}}
    draw = np.random.default_rng(seed)
    drawn = [draw.integers(0, len(table), len(table)) for _ in range(200)]
    for column, kind in enumerate(_KINDS, 1):
        found["discernment"][kind] = discernment(table[:, 0], table[:, column])
        again = [discernment(table[places, 0], table[places, column]) for places in drawn]
        wrong = 2 * (1 - float(np.quantile(again, 0.05)))
        found["at_most"][kind] = 1.0 if wrong >= 0.25 else (1 - (1 - 4 * wrong) ** 0.5) / 2
    return found


def _sample(corpus: Corpus, config: AuditConfig) -> list[int]:
    """Up to `sample` rows of every source, in corpus order."""
    by_source: defaultdict[str, list[int]] = defaultdict(list)
    for row, source in enumerate(corpus.column("source")):
        by_source[source].append(row)
    draw = np.random.default_rng(config.seed)
    chosen: list[int] = []
    for members in by_source.values():
        chosen += draw.permutation(members)[: config.sample].tolist()
    return sorted(chosen)


def _wrong_texts(texts: Sequence[str]) -> list[str]:
    """For every text that of the utterance nearest in length, so that length alone gives nothing away."""
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    wrong = list(texts)
    for place, index in enumerate(order):
        others = (order[(place + step) % len(order)] for step in range(1, len(order)))
        wrong[index] = next((texts[other] for other in others if texts[other] != texts[index]), "")
    return wrong


@torch.no_grad()
def token_losses(loaded: Loaded, items: Sequence[Item]) -> list[float]:
    """Mean cross-entropy of the text tokens of each item, the language tokens before them left out."""
    device = next(loaded.model.parameters()).device
    batch = on(collate(items, loaded.prompt), device)
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


def _decide(found: dict[str, dict[str, float]], config: AuditConfig) -> tuple[str, str]:
    """Never STOP: that transcripts are bad cannot be told here from a model that hears badly."""
    bounds = ", ".join(f"{100 * found['at_most'][kind]:.1f} % {kind}" for kind in _KINDS)
    if max(found["at_most"].values()) <= config.caution:
        return PROCEED, f"of the transcripts at most {bounds}; other faults are not looked for"
    return CAUTION, (
        f"not judged: of the transcripts at most {bounds}, and whether it is they or this model that does not know the "
        "language cannot be told; listen to those that fit worst"
    )
