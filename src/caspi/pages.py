"""The reports of the stages: what each shows a person."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from caspi.charts import Chart, Line
from caspi.corpus.signals import SIGNALS
from caspi.corpus.utterance import Utterance
from caspi.folders import read_jsonl
from caspi.progress import duration
from caspi.report import Clip, Page, Table

if TYPE_CHECKING:  # these take a second and more to import
    from caspi.corpus.sharing import Drawn
    from caspi.training.preview import Heard

SYNTHETIC_NOTE = (
    "Synthetic speech: these figures are of espeak-ng voices reading generated sentences. "
    "They show that the path works, not how well anybody's speech is recognised."
)
_WORST = 50


def _hours(value: float) -> str:
    return f"{value:.2f} h" if value >= 0.1 else f"{value * 60:.1f} min"


FEW = 5  # groups: intervals of fewer are rough


def rate(value: float, interval: Sequence[float] | None = None) -> str:
    """`0.083 [0.061, 0.105]`."""
    return f"{value:.3f}" + (f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else "")


def counted(summary: dict[str, Any]) -> str:
    """`200 of 1,204 utterances in 8 groups`: how much an evaluation's figure rests on."""
    whole = sum(part["of"] for part in summary.get("evaluated", ()))
    utterances, groups = summary["utterances"], summary["independent"]
    said = f"{utterances:,} of {whole:,} utterances" if whole > utterances else plural(utterances, "utterance")
    if groups == utterances:
        return said
    return f"{said} in {plural(groups, 'group')}{', so its interval is rough' if 1 < groups < FEW else ''}"


def plural(number: int, what: str) -> str:
    """`1 utterance`, `1,204 utterances`."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def prepare_page(name: str, summary: dict[str, Any]) -> Page:
    """Hours kept, what was rejected and why."""
    rejected = sum(summary["rejected"].values())
    return Page(
        title=f"caspi prepare · {name}",
        headline=f"{_hours(summary['hours'])} kept in {summary['kept']:,} utterances; {rejected:,} of "
        f"{summary['input']:,} rejected",
        facts=[
            ("input", f"{summary['input']:,}"),
            ("kept", f"{summary['kept']:,}"),
            ("rejected", f"{rejected:,}"),
            ("time taken", duration(summary["seconds"])),
        ],
        synthetic=SYNTHETIC_NOTE if summary["synthetic"] else "",
        parts=[
            Table(
                "Splits",
                ("split", "utterances", "hours", "fingerprint"),
                [
                    (s, f"{v['utterances']:,}", f"{v['hours']:.3f}", v["fingerprint"][:16])
                    for s, v in summary["splits"].items()
                ],
            ),
            Table(
                "Sources",
                ("source", "utterances", "groups", "hours", "taken over"),
                [
                    (
                        source,
                        f"{report['utterances'][source]:,}",
                        f"{report['groups'][source]:,}",
                        f"{hours:.3f}",
                        "yes" if number < summary["reused"] else "",
                    )
                    for number, report in enumerate(summary["source_reports"])
                    for source, hours in report["hours"].items()
                ],
                note="Groups are recordings or speakers; a split never divides one.",
            ),
            _rejections(summary),
            Table(
                "Signals of what was kept",
                ("source", *(name.replace("_", " ") for name in SIGNALS)),
                [
                    (source, *(_spread(values[name]) for name in SIGNALS))
                    for report in summary["source_reports"]
                    for source, values in report["signals"].items()
                ],
                note="Median, with the 5th and 95th percentile. All are columns of the corpus.",
            ),
            Table(
                "Text policy",
                ("rule", "setting"),
                [(name.replace("_", " "), value) for name, value in summary["text_policy"].items()],
            ),
        ],
    )


def _rejections(summary: dict[str, Any]) -> Table:
    return Table(
        "Rejected",
        ("reason", "utterances", "for example"),
        [
            (
                reason,
                f"{count:,}",
                "; ".join(f"{e['id']} ({e['detail']})" for e in summary["rejected_examples"][reason][:2]),
            )
            for reason, count in sorted(summary["rejected"].items(), key=lambda item: -item[1])
        ],
        text=(2,),
    )


def _spread(percentiles: list[float]) -> str:
    """`-18.9 (-23.0 to -16.2)`."""
    low, middle, high = (f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}" for value in percentiles)
    return f"{middle} ({low} to {high})"


def preview_page(name: str, stage: str, heard: Sequence[Heard]) -> Page:
    """Clips under augmentation, to listen to."""
    by_id = {one.id: one.text for one in heard}
    return Page(
        title=f"caspi augment-preview · {name}",
        headline=f"What stage {stage} hears: {len(by_id)} utterances in {len(heard)} versions",
        facts=[
            ("utterances", str(len(by_id))),
            ("effects", str(sum("alone" in one.how for one in heard) // len(by_id))),
        ],
        parts=[
            Table(
                text,
                ("listen", "how", "seconds", "drawn"),
                [
                    (Clip(one.flac), one.how, f"{one.seconds:.2f}", ", ".join(one.values))
                    for one in heard
                    if one.id == identifier
                ],
                note=identifier,
            )
            for identifier, text in by_id.items()
        ],
    )


def sample_page(folder: str, drawn: Sequence[Drawn]) -> Page:
    """Utterances to listen to."""
    seconds = sum(d.utterance.seconds for d in drawn)
    return Page(
        title=f"caspi corpus sample · {folder}",
        headline=f"{len(drawn)} utterances to listen to",
        facts=[("utterances", str(len(drawn))), ("audio", duration(seconds))],
        parts=[
            Table(
                "Utterances",
                ("listen", "text", "seconds", "split", "source", "group", "peak dB", "SNR dB", "up to kHz"),
                [
                    (
                        Clip(d.flac),
                        d.utterance.text,
                        f"{d.utterance.seconds:.1f}",
                        d.split,
                        d.utterance.source,
                        d.utterance.group,
                        *_signals(d.utterance),
                    )
                    for d in drawn
                ],
                text=(1,),
            )
        ],
        synthetic=SYNTHETIC_NOTE if any(d.utterance.synthetic for d in drawn) else "",
    )


def _signals(utterance: Utterance) -> tuple[str, str, str]:
    signals = utterance.signals
    if signals is None:
        return "", "", ""
    return f"{signals.peak_db:.0f}", f"{signals.snr_db:.0f}", f"{signals.bandwidth_hz / 1000:.1f}"


def jsonl_page(folder: str, written: dict[str, int]) -> Page:
    """What was written for other programs."""
    return Page(
        title=f"caspi corpus export · {folder}",
        headline=f"{sum(written.values()):,} utterances as JSONL and WAV",
        facts=[(split, f"{count:,}") for split, count in written.items()],
        parts=[],
    )


def train_page(name: str, summary: dict[str, Any], metrics_file: Path) -> Page:
    """Loss, WER and what each stage trained."""
    lines = read_jsonl(metrics_file)
    offsets, total = {}, 0
    for stage in summary["stages"]:
        offsets[stage["name"]] = total
        total += stage["steps"]

    def curve(key: str) -> list[tuple[float, float]]:
        return [
            (offsets[row["stage"]] + row["step"], row[key]) for row in lines if key in row and row["stage"] in offsets
        ]

    last = summary["stages"][-1]["checkpoints"][-1]
    hours = sum(stage["audio_hours"] for stage in summary["stages"])
    taken = sum(stage["seconds"] for stage in summary["stages"])
    return Page(
        title=f"caspi train · {name}",
        headline=f"validation WER {rate(last['wer'])}, CER {rate(last['cer'])}, loss {last['loss']:.3f} per token",
        facts=[
            ("stages", str(len(summary["stages"]))),
            ("steps", f"{total:,}"),
            ("audio trained on", _hours(hours)),
            ("time taken", duration(taken)),
        ],
        synthetic=SYNTHETIC_NOTE if summary.get("synthetic") else "",
        parts=[
            Chart(
                "Loss per target token",
                [Line("training", curve("loss")), Line("validation", curve("eval_loss"))],
                "step",
                "loss",
            ),
            Chart("Validation", [Line("WER", curve("eval_wer")), Line("CER", curve("eval_cer"))], "step", "rate"),
            Table(
                "What was trained",
                ("stage", "group", "rate", "parameters", ""),
                [
                    (stage["name"], g["group"], f"{g['lr']:g}", f"{g['parameters']:,}", g["note"])
                    for stage in summary["stages"]
                    for g in stage["groups"]
                ],
            ),
            _checkpoints("Checkpoints", [c for stage in summary["stages"] for c in stage["checkpoints"]]),
        ],
    )


def plan_page(name: str, summary: dict[str, Any]) -> Page:
    """Batches, memory and price of every stage."""
    stages = summary["stages"]
    timed, priced = "hours" in stages[0], "cost" in stages[0]
    price = f", about {duration(3600 * sum(s['hours'] for s in stages))}" if timed else ""
    price += f" and {sum(s['cost'] for s in stages):.2f} $" if priced else ""
    where = f"{summary['gpus']} x {summary['gpu']}" if priced else plural(summary["gpus"], "rank")
    speed = "a pilot on this machine" if summary["measured"] else "the GPU table"
    return Page(
        title=f"caspi plan · {name}",
        headline=f"{sum(s['steps'] for s in stages):,} steps on {where}{price}",
        facts=[
            ("utterances", f"{summary['utterances']:,}"),
            ("parameters", f"{summary['parameters']:,}"),
            ("audio", _hours(sum(s["audio_hours"] for s in stages))),
        ],
        parts=[
            Table(
                "Batches",
                ("stage", "mix", "epochs", "steps", "effective batch", "micro-batches a step", "imbalance", "filled"),
                [
                    (
                        s["name"], s["mix"] or "all", f"{s['epochs']:g}", f"{s['steps']:,}", s["effective_batch"],
                        f"{s['micro_batches_per_step']:.1f}", f"{s['imbalance']:.1%}", f"{s['filled']:.0%}",
                    )
                    for s in stages
                ],
                note="imbalance: of the ranks' time, waiting for the slowest; filled: of the budget's seconds.",
            ),
            Table(
                "What it takes",
                ("stage", "trainable", "peak GiB", "time", "cost $"),
                [
                    (
                        s["name"], f"{s['trainable']:,}",
                        f"{s['peak_gib']:.2f}{'' if s.get('fits', True) else ' DOES NOT FIT'}",
                        duration(3600 * s["hours"]) if timed else "-", f"{s['cost']:.2f}" if priced else "-",
                    )
                    for s in stages
                ],
                note=f"Speed: {speed}. The time is that of the steps: evaluating and saving come on top. The allocator "
                "holds 2 to 4 GiB more than the peak.",
            ),
            *[
                Table(f"What would fit stage {s['name']}", ("change",), [(change,) for change in s["changes"]])
                for s in stages
                if s.get("changes")
            ],
            Table(
                "What is trained on, decoded",
                ("utterance", "target"),
                [(t["id"], t["target"]) for t in summary["targets"]],
                text=(1,),
            ),
        ],
    )  # fmt: skip


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
                note="Told apart: how often this model finds another utterance's transcript worse than an utterance's "
                "own. At most: the share of wrong transcripts that there can be for that (95 %). Halves told apart: "
                "the same of transcripts without the second half of their words; low, the model does not hear that "
                "words are missing; high, it says nothing of the corpus.",
            ),
            Table(
                "Least convincing transcripts",
                ("own loss", "wrong text's", "text", "id"),
                [(f"{u['loss']:.2f}", f"{u['wrong_text_loss']:.2f}", u["text"], u["id"]) for u in worst],
                text=(2,),
            ),
        ],
    )


def average_verdict(summary: dict[str, Any]) -> str:
    """`the average has WER 0.029, better than 1 of its 3 parts, the best of which has 0.027`."""
    parts = summary["parts"]
    best = min(part["wer"] for part in parts)
    wer = f"the average has WER {summary['measured']['wer']:.3f}"
    return f"{wer}, better than {summary['better_than']} of its {len(parts)} parts, the best of which has {best:.3f}"


def average_page(run: str, summary: dict[str, Any]) -> Page:
    """Which checkpoints were averaged, and whether it paid."""
    parts = summary["parts"]
    weights = summary["weights"] or [1.0] * len(parts)
    rows = [("the average", "", rate(m["wer"]), rate(m["cer"]), f"{m['loss']:.4f}") for m in [summary["measured"]]]
    rows += [
        (p["path"], f"{weight / sum(weights):.3f}", rate(p["wer"]), rate(p["cer"]), f"{p['loss']:.4f}")
        for p, weight in zip(parts, weights, strict=True)
    ]
    return Page(
        title=f"caspi average · {run}",
        headline=average_verdict(summary),
        facts=[("checkpoints", str(len(parts)))],
        parts=[
            Table(
                "The average and its parts",
                ("checkpoint", "weight", "WER", "CER", "loss"),
                rows,
                note="All on the same subset of the validation split; summed in float64.",
            )
        ],
    )


def export_page(model: str, to: str, files: dict[str, int]) -> Page:
    """What was written."""
    return Page(
        title=f"caspi export · {model}",
        headline=f"{to}, {sum(files.values()) / 2**20:,.1f} MiB",
        facts=[("files", str(len(files)))],
        parts=[Table("Files", ("file", "bytes"), [(name, f"{size:,}") for name, size in files.items()])],
    )


def _checkpoints(title: str, found: list[dict[str, Any]]) -> Table:
    return Table(
        title,
        ("checkpoint", "WER", "CER", "loss"),
        [(c["path"], rate(c["wer"]), rate(c["cer"]), f"{c['loss']:.4f}") for c in found],
    )
