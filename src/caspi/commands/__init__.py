"""What each command does: run the stage, write its report, say where the result is. No argument parsing here."""

from caspi.commands import (
    audit,
    augment_preview,
    average,
    compare,
    corpus,
    doctor,
    evaluate,
    export,
    plan,
    prepare,
    publish,
    score,
    train,
    transcribe,
)

__all__ = [
    "audit",
    "augment_preview",
    "average",
    "compare",
    "corpus",
    "doctor",
    "evaluate",
    "export",
    "plan",
    "prepare",
    "publish",
    "score",
    "train",
    "transcribe",
]
