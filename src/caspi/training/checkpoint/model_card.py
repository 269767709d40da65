"""The model card of a checkpoint: its data, its training and its results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from huggingface_hub import ModelCard, ModelCardData
from jinja2 import Environment, PackageLoader, StrictUndefined

from caspi.audio import Seconds
from caspi.language import language
from caspi.training.checkpoint.provenance import Provenance


def model_card(
    provenance: Provenance,
    description: str,
    figures: Mapping[str, str],
    environment: dict[str, Any],
    max_clip_seconds: Seconds,
) -> str:
    """README.md of a checkpoint. description: one line, such as `stage all, step 300`. figures: of the
    evaluation of these weights, empty if there was none. max_clip_seconds: of the longest training clip."""
    corpus = provenance.corpus_report
    on_the_hub = provenance.base.count("/") == 1 and not provenance.base.startswith((".", "/", "runs/"))
    header = ModelCardData(
        language=language(provenance.language).code,
        license="apache-2.0" if on_the_hub else None,
        library_name="transformers",
        pipeline_tag="automatic-speech-recognition",
        base_model=provenance.base if on_the_hub else None,
        tags=["caspi", "qwen3-asr", *(["forced-alignment"] if provenance.task == "align" else [])],
    )
    templates = Environment(
        loader=PackageLoader("caspi"), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        autoescape=False,  # noqa: S701 - Markdown
    )  # fmt: skip
    text = templates.get_template("card.md.j2").render(
        provenance=provenance,
        description=description,
        figures=figures,
        corpus={**corpus, "utterances": sum(split["utterances"] for split in corpus["splits"].values())},
        history=_history(corpus),
        environment=environment,
        limit=clip_limit_notice(max_clip_seconds),
    )
    return str(ModelCard(f"---\n{header.to_yaml()}\n---\n\n{text}"))


def _history(corpus: Mapping[str, Any]) -> str:
    """What the stage that made the corpus did with its input."""
    if corpus["stage"] == "repair":
        done = f"{corpus['changed']:,} were changed and {corpus['dropped']:,} dropped"
        return f"of {corpus['input']:,} in the train split of `{corpus['made_from']['corpus']}`, `caspi repair` {done}"
    what = "labelled by recognisers, not by people; " if corpus["stage"] == "label" else ""
    return f"{what}{corpus['input'] - corpus['kept']:,} of {corpus['input']:,} were rejected"


def clip_limit_notice(max_clip_seconds: Seconds | None) -> str:
    """A notice about long recordings."""
    if max_clip_seconds is None:
        return ""
    return (
        f"Give it clips of at most {max_clip_seconds:g} seconds: it was not trained on longer ones, and its "
        "text for longer clips is wrong in every program. `caspi transcribe` cuts long recordings at pauses "
        "automatically."
    )
