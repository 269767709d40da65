"""caspi repair: a new corpus in which what an audit flags is mended, left out, or marked for people."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from caspi import atomic_output, recipe
from caspi.audit.calibration import KNOWN
from caspi.commands.outcome import Outcome, split_option
from caspi.errors import UsageError
from caspi.reporting import report
from caspi.reporting.report import LISTED, AudioCell, Browser, Page, Table
from caspi.reporting.wording import plural

if TYPE_CHECKING:
    from caspi.audit.repair import AuditedCorpus, Change, Repaired, RepairPolicy
    from caspi.corpus.store import Corpus

_log = logging.getLogger(__name__)
_LISTENED = 20  # changes with players
_FOR_PEOPLE = "for_people.jsonl"


def policy_of(path: Path | None) -> RepairPolicy:
    """The policy in a YAML file; without one, the default. Raises UsageError."""
    from caspi.audit.repair import RepairPolicy

    return RepairPolicy() if path is None else recipe.load_as(RepairPolicy, path, "policy")


def run(corpus: Path, audit: Path, out: Path | None, policy: RepairPolicy) -> Outcome:
    """Repairs what the audit in a folder flags. The old corpus stays as it is."""
    from caspi.audit.repair import AuditedCorpus, repair
    from caspi.audit.signals import Listeners
    from caspi.corpus.derived import write_derived
    from caspi.corpus.store import Corpus
    from caspi.model.loading import content_of

    found = _audit_of(audit, corpus)
    audited = AuditedCorpus.from_json(found)
    out = out or atomic_output.default_output(corpus, "repaired")
    if out.resolve().is_relative_to(corpus.resolve()):
        raise UsageError(f"{out} is the corpus itself, or inside of it, and it is never changed: give another --out")
    opened = Corpus.open(corpus, split_option(found["split"]))
    names = found["recognisers"]
    for model, content in zip([*filter(None, [found["aligner"]]), *names], found["model_contents"], strict=True):
        if content_of(model) != content:
            raise UsageError(f"{model} is not as it was when {audit} was made: audit again")
    listeners = Listeners.of(found["aligner"], names)
    work = atomic_output.work_folder(out, "repair")
    with atomic_output.locked(work, "repair"):
        done = repair(opened, audited, listeners, policy)
        _check_share(done, policy)
        partial = atomic_output.begin_atomic(out, "repair")
        made = write_derived(opened, partial, done.replaced, done.untold)
        if done.marked:
            _write_marked(partial / _FOR_PEOPLE, done)
        summary = {
            "stage": "repair", **made, "audit": str(audit), "policy": policy.model_dump(mode="json"), **done.as_json(),
        }  # fmt: skip
        report.write_report(partial, repair_page(str(corpus), done, _to_listen_to(opened, done)), summary)
        atomic_output.commit_atomic(partial, out)
    shutil.rmtree(work)
    _warn(done, audited, policy, len(names))
    if done.audited < done.input:
        _log.warning(
            f"{done.input - done.audited:,} of {done.input:,} utterances were not audited and are kept as they are: "
            "caspi audit --share 1 looks at all"
        )
    line = (
        f"{done.input:,} utterances: {done.kept:,} kept, {done.changed:,} changed, {done.dropped:,} dropped"
        + (f"; {done.marked:,} of the kept ones are for people to look at: {out / _FOR_PEOPLE}" if done.marked else "")
    )  # fmt: skip
    return Outcome(line, out / report.HTML, summary)


def _audit_of(folder: Path, corpus: Path) -> dict[str, Any]:
    """The audit's report. Raises UsageError if it is not one of this corpus, as it is now."""
    path = folder / "alignment_report.json"
    if not path.is_file():
        raise UsageError(f"{folder} is not an audit (it has no {path.name}): caspi audit {corpus} makes one")
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(f"{path} is damaged ({error}): audit again") from error
    if not isinstance(content, dict) or not {"model_contents", "scorer", "utterances", "apart"} <= content.keys():
        raise UsageError(f"{path} is not complete, or of an older caspi: audit again")
    if not (corpus / atomic_output.REPORT).is_file():
        raise UsageError(f"{corpus} is not a corpus: make one with caspi prepare RECIPE")
    if content["apart"] < KNOWN:
        raise UsageError(
            f"{folder}: its models do not know such speech, so most of what it flags may be right: audit with an "
            "aligner or a recogniser that does"
        )
    if content["corpus_fingerprint"] != report.fingerprint(corpus):
        raise UsageError(f"{folder} is an audit of another corpus, or of {corpus} before it changed: audit it again")
    return content


def _check_share(done: Repaired, policy: RepairPolicy) -> None:
    if done.dropped > policy.max_dropped * done.input or not done.kept + done.changed:
        raise UsageError(
            f"{done.dropped:,} of {done.input:,} utterances would be dropped: look at the audit, or allow it with "
            "max_dropped in the policy"
        )


def _warn(done: Repaired, audited: AuditedCorpus, policy: RepairPolicy, recognisers: int) -> None:
    from caspi.audit.calibration import FALSE_ALARMS

    acted_on = len(done.changes)
    right = round(FALSE_ALARMS * (1 - audited.faulty) * done.audited)
    if acted_on and 2 * right > acted_on:
        _log.warning(
            f"about {min(right, acted_on):,} of the {plural(acted_on, 'utterance')} acted on are right: an audit flags "
            "5 % of the right ones, and few are faulty here; a higher threshold in the policy spares more of them"
        )
    if "actions" in policy.model_fields_set and "numbers" in policy.actions and recognisers < 2:
        _log.warning("numbers was not tried: it needs an audit with two recognisers (--asr twice)")


def _write_marked(path: Path, done: Repaired) -> None:
    with path.open("w", encoding="utf-8") as file:
        for change in done.changes:
            if change.action == "mark":
                line = {
                    "id": change.before.id, "text": change.before.text, "seconds": change.before.seconds,
                    "score": change.before.score, "reasons": list(change.reasons),
                }  # fmt: skip
                file.write(json.dumps(line, ensure_ascii=False) + "\n")


def _to_listen_to(corpus: Corpus, done: Repaired) -> list[tuple[object, ...]]:
    """Rows of some changes of every action: what was done, both texts, both clips."""
    from caspi import audio

    shown: list[Change] = []
    for action in dict.fromkeys(change.action for change in done.changes):
        shown += [change for change in done.changes if change.action == action][: _LISTENED // 2]
    rows: list[tuple[object, ...]] = []
    for change in shown:
        new = done.replaced.get(change.row, [])
        after = AudioCell(audio.encode_flac(audio.pcm16(new[0].samples(corpus)))) if new else ""
        rows.append((
            _named(change.action), change.before.text, AudioCell(corpus.flac(change.row)), _texts(change), after,
        ))  # fmt: skip
    return rows


def _texts(change: Change) -> str:
    return " | ".join(version.text for version in change.after)


def _named(action: str) -> str:
    return action.replace("_", " ")


def repair_page(corpus: str, done: Repaired, listened: list[tuple[object, ...]]) -> Page:
    """Counts, some changes to listen to, and all changes."""
    actions = dict.fromkeys(change.action for change in done.changes)
    return Page(
        title=f"caspi repair · {corpus}",
        headline=f"{done.kept:,} of {done.input:,} utterances kept, {done.changed:,} changed, {done.dropped:,} dropped",
        facts=[
            ("input", f"{done.input:,}"),
            ("kept", f"{done.kept:,}"),
            ("changed", f"{done.changed:,}"),
            ("dropped", f"{done.dropped:,}"),
        ],
        parts=[
            Table(
                "What was done",
                ("action", "utterances", "seconds before", "seconds after"),
                [_row_of(action, [one for one in done.changes if one.action == action]) for action in actions],
                note="A change counts only if the audit, measuring it again, flags it no more. "
                f"{done.input - done.audited:,} utterances were not audited and are kept as they are.",
            ),
            Table(
                "Before and after",
                ("action", "text before", "before", "text after", "after"),
                listened,
                text=(1, 3),
                note="The first of every action; of several parts, the first.",
            ),
            Browser(
                "Changes",
                ("action", "score", "score after", "text before", "text after", "because of", "id"),
                [
                    (
                        _named(one.action), _score(one.before.score),
                        _score(max((v.score for v in one.after if v.score is not None), default=None)),
                        one.before.text, _texts(one), "; ".join(one.reasons), one.before.id,
                    )
                    for one in done.changes[:LISTED]
                ],
                text=(3, 4),
                note=f"{plural(len(done.changes), 'utterance')}; here are at most {LISTED:,}, report.json has all.",
            ),
        ],
    )  # fmt: skip


def _row_of(action: str, changes: list[Change]) -> tuple[object, ...]:
    before = sum(change.before.seconds for change in changes)
    after = sum(version.seconds for change in changes for version in change.after)
    return _named(action), f"{len(changes):,}", f"{before:,.0f}", f"{before if action == 'mark' else after:,.0f}"


def _score(value: float | None) -> float | str:
    return "" if value is None else round(value, 2)
