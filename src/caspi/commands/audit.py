"""caspi audit: how many transcripts of a corpus are faulty, which, and whether training may begin."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from caspi import atomic_output
from caspi.commands.outcome import Outcome, split_option
from caspi.errors import UsageError
from caspi.reporting import report
from caspi.reporting.charts import Bar, Bars
from caspi.reporting.report import Browser, Page, Table
from caspi.reporting.wording import percent, plural

if TYPE_CHECKING:
    from caspi.audit.audit import AuditConfig, AuditReport
    from caspi.audit.calibration import Estimate

_STOP_EXIT = 3


def run(
    corpus: Path, aligner: str | None, recognisers: Sequence[str], out: Path | None, config: AuditConfig,
    split: str = "train",
) -> Outcome:  # fmt: skip
    """Audits a sample and writes the report. After a kill, the same call resumes. Exit code 3: STOP."""
    from caspi.alignment.align import Aligner
    from caspi.audit.audit import audit
    from caspi.audit.signals import Recogniser
    from caspi.corpus.store import Corpus
    from caspi.model.files import model_fingerprint
    from caspi.model.loading import resolve

    models = [*([aligner] if aligner else []), *recognisers]
    if not models:
        raise UsageError("give --aligner, --asr or both: something must listen")
    out = out or corpus.with_name(corpus.name + "-audit")
    atomic_output.check_owned(out, "audit")
    opened = Corpus.open(corpus, split_option(split))
    listener = Aligner.of(aligner) if aligner else None
    several = len(recognisers) > 1
    judges = [Recogniser.of(one, f" ({n})" if several else "") for n, one in enumerate(recognisers, 1)]
    work = atomic_output.work_folder(out, "audit")
    prints = [model_fingerprint(Path(resolve(one))) for one in models]
    key = json.dumps([report.fingerprint(corpus), split, prints, config.sampling.model_dump()])
    with atomic_output.locked(work, "audit"):
        cache = work / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.jsonl"
        audited = audit(opened, listener, judges, config, cache)
        partial = atomic_output.begin_atomic(out, "audit")
        summary = {
            "stage": "audit", "corpus": str(corpus), "split": split, "corpus_fingerprint": report.fingerprint(corpus),
            "aligner": aligner, "recognisers": list(recognisers), **audited.as_json(),
        }  # fmt: skip
        content = json.dumps(summary, ensure_ascii=False, indent=1)
        (partial / "alignment_report.json").write_text(content, encoding="utf-8")
        report.write_report(partial, audit_page(str(corpus), audited), summary)
        atomic_output.commit_atomic(partial, out)
    shutil.rmtree(work)
    line = f"{audited.decision}: {audited.reason}"
    return Outcome(line, out / report.HTML, summary, _STOP_EXIT if audited.decision == "STOP" else 0)


def audit_page(corpus: str, audited: AuditReport) -> Page:
    """The decision, what these models can find, the share by source and stratum, and every utterance."""
    calibration = audited.calibration
    flagged = sum(utterance.flagged for utterance in audited.utterances)
    return Page(
        title=f"caspi audit · {corpus}",
        headline=f"{audited.decision}: {audited.reason}",
        facts=[
            ("decision", audited.decision),
            ("faulty", _interval(calibration.faulty) if calibration.faulty else "not known"),
            ("sampled", f"{len(audited.utterances):,}"),
            ("flagged", f"{flagged:,}"),
        ],
        parts=[
            Bars(
                "What these models find",
                [Bar(kind, recall) for kind, recall in calibration.recall.items()],
                note="Share of transcripts with such a fault, made on purpose in this corpus, that are flagged where 5 "
                "% of the right ones are. Kinds below 50 % are not seen: the share of faulty transcripts is without "
                "them. A fault that most utterances share cannot be found.",
            ),
            Table(
                "Share of faulty transcripts",
                ("part", "faulty [95 %]"),
                [(name, _interval(one)) for name, one in audited.parts.items()],
                note="Noisy, clean: by signal-to-noise ratio. Tail: the longest and shortest, and unusual rates.",
            ),
            Browser(
                "Utterances, most suspicious first",
                ("score", "flagged", "because of", "text", "seconds", "source", "id"),
                [
                    (
                        round(one.score, 2), "yes" if one.flagged else "", "; ".join(one.reasons), one.text,
                        round(one.seconds, 1), one.source, one.id,
                    )
                    for one in sorted(audited.utterances, key=lambda one: -one.score)
                ],
                text=(3,),
                note=f"{plural(flagged, 'utterance')} flagged. Because of: the signals that add most to the score.",
            ),
        ],
    )  # fmt: skip


def _interval(found: Estimate) -> str:
    return f"{percent(found.share)} [{percent(found.low)}, {percent(found.high)}]"
