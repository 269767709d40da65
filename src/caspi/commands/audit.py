"""caspi audit: an upper bound on the share of wrong transcripts in a corpus, from a sample."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from caspi import recipe as recipes
from caspi.commands.outcome import Outcome
from caspi.recipe import Recipe
from caspi.reporting import report
from caspi.reporting.report import Page, Table
from caspi.reporting.wording import percent

if TYPE_CHECKING:
    from caspi.audit.audit import AuditReport

_WORST = 50


def audit_page(corpus: str, audited: AuditReport) -> Page:
    """The decision, the bounds by source, and the transcripts with the poorest fit."""
    worst = sorted(audited.utterances, key=lambda u: u.wrong_text_loss - u.loss)[:_WORST]
    parts = {"all": (audited.sampled, audited.whole), **audited.strata}
    return Page(
        title=f"caspi audit · {corpus}",
        headline=f"{audited.decision}: {audited.reason}",
        facts=[
            ("wrong transcripts, upper bound", percent(audited.whole.at_most)),
            ("AUC, wrong transcript", percent(audited.whole.discernment)),
            ("AUC, half transcript", percent(audited.whole.discernment_of_halves)),
            ("sampled", f"{audited.sampled:,}"),
        ],
        parts=[
            Table(
                "Bounds by source",
                (
                    "source",
                    "sampled",
                    "wrong transcripts, upper bound",
                    "AUC, wrong transcript",
                    "AUC, half transcript",
                ),
                [
                    (name, sampled, *map(percent, (found.at_most, found.discernment, found.discernment_of_halves)))
                    for name, (sampled, found) in parts.items()
                ],
                note="AUC, wrong transcript: how often another utterance's transcript has a higher loss than the "
                "utterance's own. Upper bound: the largest share of wrong transcripts that agrees with this AUC "
                "(95 %). AUC, half transcript: the same for transcripts without the second half of their words. If it "
                "is low, the model does not notice missing words; if it is high, it says nothing about the corpus.",
            ),
            Table(
                "Transcripts with the poorest fit",
                ("loss, own transcript", "loss, wrong transcript", "text", "id"),
                [(f"{u.loss:.2f}", f"{u.wrong_text_loss:.2f}", u.text, u.id) for u in worst],
                text=(2,),
            ),
        ],
    )


def run(corpus: Path, model: str, recipe: Recipe | None = None) -> Outcome:
    """Audits a sample of the corpus and writes the report."""
    from caspi.audit.audit import AuditConfig
    from caspi.audit.audit import audit as judge
    from caspi.corpus.store import Corpus
    from caspi.model.config import ModelConfig
    from caspi.model.loading import load

    audited = judge(Corpus.open(corpus, "train"), load(ModelConfig(start=model)), AuditConfig())
    summary = {
        "stage": "audit",
        "corpus": str(corpus),
        "corpus_fingerprint": report.fingerprint(corpus),
        "model": model,
        **audited.as_json(),
    }
    out = corpus.with_name(corpus.name + "-audit")
    page = report.write_report(out, audit_page(str(corpus), audited), summary, recipes.dump(recipe) if recipe else None)
    (out / "alignment_report.json").write_text(json.dumps(summary, ensure_ascii=False, indent=1), encoding="utf-8")
    return Outcome(f"{audited.decision}: {audited.reason}", page, summary)
