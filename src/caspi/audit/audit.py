"""Is this corpus worth training on? A sample of it, judged by a recogniser that is itself put to the test first.

Every sampled utterance is scored by the model's loss per token on its own transcript and on another utterance's.
If the model cannot tell the two apart, it cannot judge this corpus and the audit says so; no figure is made up.
Where it can, an utterance is of low quality if its own transcript fits no better than a wrong one would.
"""

from __future__ import annotations

import math
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


class AuditConfig(Config):
    """sample: utterances of each source. wrong_accepted: share of wrong transcripts that may pass as right.

    Above `stop` of low quality (lower bound of its interval) the gate says STOP, above `caution` CAUTION; with
    `discernment` below the limit (the chance that a wrong transcript looks worse than the right one), CAUTION.
    """

    sample: int = Field(300, ge=10)
    wrong_accepted: float = Field(0.05, gt=0, lt=1)
    caution: float = Field(0.10, gt=0, lt=1)
    stop: float = Field(0.30, gt=0, lt=1)
    min_discernment: float = Field(0.90, ge=0.5, le=1)
    seed: int = 0


def audit(corpus: Corpus, loaded: Loaded, config: AuditConfig) -> dict[str, Any]:
    """The content of alignment_report.json."""
    rows = _sample(corpus, config)
    utterances = [corpus.utterance(row) for row in rows]
    wrong = _wrong_texts([u.text for u in utterances])
    own_loss, wrong_loss = [], []
    with Progress("audit", unit="utterances", total=len(rows)) as progress:
        for row, utterance, other in zip(rows, utterances, wrong, strict=True):
            samples = corpus.samples(row)
            own, not_own = token_losses(
                loaded,
                [Item(samples, text, utterance.language, utterance.context) for text in (utterance.text, other)],
            )
            own_loss.append(own)
            wrong_loss.append(not_own)
            progress.advance(1)
    discernment = _discernment(own_loss, wrong_loss)
    threshold = float(np.quantile(wrong_loss, config.wrong_accepted))
    able = discernment >= config.min_discernment
    low = [loss >= threshold for loss in own_loss]
    strata: defaultdict[str, list[bool]] = defaultdict(list)
    for utterance, flag in zip(utterances, low, strict=True):
        strata[utterance.source].append(flag)
    decision, reason = _decide(low, discernment, config)
    return {
        "decision": decision,
        "reason": reason,
        "sampled": len(rows),
        "discernment": discernment,
        "threshold": threshold if able else None,
        "low_quality_fraction": float(np.mean(low)) if able else None,
        "low_quality_interval": wilson(sum(low), len(low)) if able else None,
        "strata": {
            source: {
                "sampled": len(flags),
                "low_quality_fraction": float(np.mean(flags)) if able else None,
                "low_quality_interval": wilson(sum(flags), len(flags)) if able else None,
            }
            for source, flags in sorted(strata.items())
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
                "low_quality": flag if able else None,
            }
            for u, own, not_own, flag in zip(utterances, own_loss, wrong_loss, low, strict=True)
        ],
    }


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


def _discernment(right: Sequence[float], wrong: Sequence[float]) -> float:
    """Area under the ROC curve: the chance that a wrong transcript has the higher loss."""
    ordered = np.sort(np.asarray(right))
    below = np.searchsorted(ordered, wrong, side="left") + np.searchsorted(ordered, wrong, side="right")
    return float(below.sum() / (2 * len(right) * len(wrong)))


def wilson(count: int, total: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927)."""
    z, share = 1.959964, count / total
    centre = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return max(0.0, centre - half), min(1.0, centre + half)


def _decide(low: Sequence[bool], discernment: float, config: AuditConfig) -> tuple[str, str]:
    if discernment < config.min_discernment:
        return CAUTION, (
            f"this model cannot judge the corpus: it finds the wrong transcript worse in {discernment:.0%} of cases, "
            f"{config.min_discernment:.0%} are needed; audit with a model that knows the language"
        )
    share, (least, _) = float(np.mean(low)), wilson(sum(low), len(low))
    if least > config.stop:
        return STOP, f"at least {least:.0%} of the transcripts fit no better than a wrong one"
    if share > config.caution:
        return CAUTION, f"{share:.0%} of the transcripts fit no better than a wrong one"
    return PROCEED, f"{share:.1%} of the transcripts fit no better than a wrong one"
