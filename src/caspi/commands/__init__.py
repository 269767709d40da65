"""One module per command: it runs the stage and writes the report. Arguments are parsed in `caspi.cli`."""

from caspi.commands import (
    align,
    audit,
    augment_preview,
    average,
    compare,
    corpus,
    doctor,
    evaluate,
    export,
    parity,
    plan,
    prepare,
    publish,
    score,
    train,
    transcribe,
)

__all__ = [
    "align",
    "audit",
    "augment_preview",
    "average",
    "compare",
    "corpus",
    "doctor",
    "evaluate",
    "export",
    "parity",
    "plan",
    "prepare",
    "publish",
    "score",
    "train",
    "transcribe",
]
