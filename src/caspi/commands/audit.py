"""caspi audit: what can be proved of a sample of a corpus."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from caspi import recipe as recipes
from caspi.commands.outcome import Outcome
from caspi.recipe import Recipe
from caspi.reporting import report
from caspi.reporting.report import Page, Table

if TYPE_CHECKING:
    pass

_WORST = 50


def audit_page(corpus: str, summary: dict[str, Any]) -> Page:
    """The decision and the utterances that look worst."""
    worst = sorted(summary["utterances"], key=lambda u: u["wrong_text_loss"] - u["loss"])[:_WORST]
    parts = {"all": summary, **summary["strata"]}
    return Page(
        title=f"caspi audit · {corpus}",
        headline=f"{summary['decision']}: {summary['reason']}",
        facts=[
            ("of something else, at most", f"{100 * summary['at_most']:.1f} %"),
            ("told apart", f"{100 * summary['discernment']:.1f} %"),
            ("halves told apart", f"{100 * summary['discernment_of_halves']:.1f} %"),
            ("sampled", f"{summary['sampled']:,}"),
        ],
        parts=[
            Table(
                "What is proved",
                ("source", "sampled", "of something else, at most", "told apart", "halves told apart"),
                [
                    (
                        name,
                        found["sampled"],
                        *(f"{100 * found[key]:.1f} %" for key in ("at_most", "discernment", "discernment_of_halves")),
                    )
                    for name, found in parts.items()
                ],
                note="Told apart: how often this model finds another utterance's transcript less likely than the "
                "utterance's own. At most: the share of wrong transcripts that is still possible given that (95 %). "
                "Halves told apart: the same for transcripts without the second half of their words; if it is low, the "
                "model does not notice missing words; if it is high, it says nothing about the corpus.",
            ),
            Table(
                "Least convincing transcripts",
                ("own loss", "wrong text's", "text", "id"),
                [(f"{u['loss']:.2f}", f"{u['wrong_text_loss']:.2f}", u["text"], u["id"]) for u in worst],
                text=(2,),
            ),
        ],
    )


def run(corpus: Path, model: str, recipe: Recipe | None = None) -> Outcome:
    """What can be proved of a sample of the corpus."""
    from caspi.audit.audit import AuditConfig
    from caspi.audit.audit import audit as judge
    from caspi.corpus.store import Corpus
    from caspi.model.config import ModelConfig
    from caspi.model.loading import load

    summary = judge(Corpus.open(corpus, "train"), load(ModelConfig(start=model)), AuditConfig())
    summary = {
        "stage": "audit",
        "corpus": str(corpus),
        "corpus_fingerprint": report.fingerprint(corpus),
        "model": model,
        **summary,
    }
    out = corpus.with_name(corpus.name + "-audit")
    page = report.write_report(out, audit_page(str(corpus), summary), summary, recipes.dump(recipe) if recipe else None)
    (out / "alignment_report.json").write_text(json.dumps(summary, ensure_ascii=False, indent=1), encoding="utf-8")
    line = f"{summary['decision']}: {summary['reason']}"
    return Outcome(line, page, summary)
