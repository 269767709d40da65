"""caspi audit: how many transcripts of a corpus are faulty, which, and whether training may begin."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from caspi import atomic_output
from caspi.commands.outcome import Outcome, split_option
from caspi.errors import UsageError
from caspi.reporting import report
from caspi.reporting.charts import Bar, Bars
from caspi.reporting.report import LISTED, Browser, Page, Table
from caspi.reporting.waveform import ShownWord, WaveformCell
from caspi.reporting.wording import percent, plural

if TYPE_CHECKING:
    from caspi.alignment.align import Aligner
    from caspi.audit.audit import AuditConfig, AuditedUtterance, AuditReport
    from caspi.audit.calibration import Estimate
    from caspi.corpus.store import Corpus

_STOP_EXIT = 3
_LISTENED = 30  # utterances with players


def run(
    corpus: Path, aligner: str | None, recognisers: Sequence[str], out: Path | None, config: AuditConfig,
    split: str = "train",
) -> Outcome:  # fmt: skip
    """Audits a sample and writes the report. After a kill, the same call resumes. Exit code 3: STOP."""
    from caspi.audit.audit import audit
    from caspi.audit.signals import Listeners
    from caspi.corpus.store import Corpus
    from caspi.model.loading import content_of

    models = [*([aligner] if aligner else []), *recognisers]
    if not models:
        raise UsageError("give --aligner, --asr or both: something must listen")
    out = out or atomic_output.default_output(corpus, "audit")
    atomic_output.check_owned(out, "audit")
    opened = Corpus.open(corpus, split_option(split))
    listeners = Listeners.of(aligner, recognisers)
    work = atomic_output.work_folder(out, "audit")
    contents = [content_of(one) for one in models]
    fingerprint = report.fingerprint(corpus)
    key = json.dumps([fingerprint, split, contents, config.sampling.model_dump()])
    with atomic_output.locked(work, "audit"):
        cache = work / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.jsonl"
        audited = audit(opened, listeners, config, cache)
        partial = atomic_output.begin_atomic(out, "audit")
        summary = {
            "stage": "audit", "corpus": str(corpus), "split": split, "corpus_fingerprint": fingerprint,
            "aligner": aligner, "recognisers": list(recognisers), "model_contents": contents, **audited.as_json(),
        }  # fmt: skip
        content = json.dumps(summary, ensure_ascii=False, indent=1)
        (partial / "alignment_report.json").write_text(content, encoding="utf-8")
        page = audit_page(str(corpus), audited, _to_listen_to(opened, audited, listeners.aligner))
        del summary["utterances"]  # of a whole corpus they are many
        report.write_report(partial, page, summary)
        atomic_output.commit_atomic(partial, out)
    shutil.rmtree(work)
    line = f"{audited.decision}: {audited.reason}"
    return Outcome(line, out / report.HTML, summary, _STOP_EXIT if audited.decision == "STOP" else 0)


def _to_listen_to(corpus: Corpus, audited: AuditReport, aligner: Aligner | None) -> list[tuple[object, ...]]:
    """Rows of the most suspicious utterances: score and reasons, text, player and waveform with words, id."""
    from caspi.alignment.align import AlignmentRequest
    from caspi.language.spoken_words import spoken_form

    worst = _worst_by_kind(audited)
    clips = [corpus.samples(one.row) for one in worst]
    words: list[list[ShownWord]] = [[] for _ in worst]
    speakable = [n for n, one in enumerate(worst) if spoken_form(one.text)]
    if aligner is not None:
        asked = [AlignmentRequest(clips[n], worst[n].text, corpus.utterance(worst[n].row).language) for n in speakable]
        for number, found in zip(speakable, aligner.align(asked), strict=True):
            words[number] = [ShownWord(word.text, word.start, word.end, word.confidence) for word in found.words]
    return [
        (
            one.looks_like, f"{one.score:.1f}: {'; '.join(one.reasons)}", one.text,
            WaveformCell.of(corpus.flac(one.row), clip, shown), one.id,
        )
        for one, clip, shown in zip(worst, clips, words, strict=True)
    ]  # fmt: skip


def _worst_by_kind(audited: AuditReport) -> list[AuditedUtterance]:
    """Those with the highest scores of every kind that they look like, as many of each; those that are not flagged
    last."""
    place: Counter[str] = Counter()
    ranked = []
    for one in audited.most_suspicious:
        place[one.looks_like] += 1
        ranked.append((not one.flagged, place[one.looks_like], one))
    chosen = [one for *_, one in sorted(ranked, key=lambda entry: entry[:2])[:_LISTENED]]
    return sorted(chosen, key=lambda one: (not one.flagged, one.looks_like, -one.score))


def audit_page(corpus: str, audited: AuditReport, listened: list[tuple[object, ...]]) -> Page:
    """The decision, what these models can find, the share by source and stratum, the most suspicious utterances to
    listen to, and all."""
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
            Table(
                "Most suspicious",
                ("looks like", "score, because of", "text", "listen", "id"),
                listened,
                text=(2,),
                note="The worst of every kind of fault that the flagged ones look like. Words from red to green: how "
                "sure the aligner is of each. White: no word of the text.",
            ),
            Browser(
                "Utterances, most suspicious first",
                ("score", "flagged", "looks like", "because of", "text", "seconds", "source", "id"),
                [
                    (
                        round(one.score, 2), "yes" if one.flagged else "", one.looks_like, "; ".join(one.reasons),
                        one.text, round(one.seconds, 1), one.source, one.id,
                    )
                    for one in audited.most_suspicious[:LISTED]
                ],
                text=(4,),
                note=f"{plural(flagged, 'utterance')} flagged. Because of: the signals that add most to the score. "
                f"alignment_report.json has all utterances; here are at most {LISTED:,}.",
            ),
        ],
    )  # fmt: skip


def _interval(found: Estimate) -> str:
    return f"{percent(found.share)} [{percent(found.low)}, {percent(found.high)}]"
