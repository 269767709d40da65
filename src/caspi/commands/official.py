"""A recipe for what a command of the official fine-tuning script, qwen3_asr_sft.py, does."""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from caspi.errors import UsageError

_SCRIPT = "qwen3_asr_sft.py"
_SCHEDULES = {"linear": "linear", "cosine": "cosine", "constant": "constant", "constant_with_warmup": "constant"}
# Arguments without a counterpart here: caspi resamples, resumes with the same command, and reads ahead by itself.
_NEEDLESS = ("sr", "pin_memory", "persistent_workers", "prefetch_factor", "save_strategy", "resume_from", "resume")


@dataclass(frozen=True, slots=True)
class OfficialCommand:
    """What a command says, with the script's defaults (its version of January 2026)."""

    model_path: str
    train_file: Path
    eval_file: Path | None
    output_dir: Path
    utterances_a_step: int
    lr: float
    epochs: float
    log_steps: int
    schedule: str
    warmup_ratio: float
    num_workers: int
    save_steps: int
    save_total_limit: int


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"--official: {message}")


def read_command(command: str) -> OfficialCommand:
    """Reads `torchrun --nproc_per_node=2 qwen3_asr_sft.py --train_file train.jsonl ...`, or the arguments alone. Raises
    UsageError."""
    try:
        words = shlex.split(command.replace("\\\n", " "))
    except ValueError as error:
        raise UsageError(f"--official: {error}") from error
    script = next((n for n, word in enumerate(words) if Path(word).name == _SCRIPT), -1)
    processes = re.search(r"--nproc[-_]per[-_]node[= ](\d+)", " ".join(words[:script])) if script > 0 else None
    parser = _Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("--model_path", default="Qwen/Qwen3-ASR-1.7B")
    parser.add_argument("--train_file", type=Path, default=Path("train.jsonl"))
    parser.add_argument("--eval_file", type=Path)
    parser.add_argument("--output_dir", type=Path, default=Path("qwen3-asr-finetuning-out"))
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--grad_acc", type=int, default=4)
    parser.add_argument("--lr", type=float, default=2e-5)
    parser.add_argument("--epochs", type=float, default=1)
    parser.add_argument("--log_steps", type=int, default=10)
    parser.add_argument("--lr_scheduler_type", default="linear", choices=sorted(_SCHEDULES))
    parser.add_argument("--warmup_ratio", type=float, default=0.02)
    parser.add_argument("--num_workers", type=int, default=4)
    parser.add_argument("--save_steps", type=int, default=200)
    parser.add_argument("--save_total_limit", type=int, default=5)
    for name in _NEEDLESS:
        parser.add_argument(f"--{name}")
    given = parser.parse_args(words[script + 1 :])
    ranks = int(processes[1]) if processes else 1
    return OfficialCommand(
        given.model_path, given.train_file, given.eval_file, given.output_dir,
        given.batch_size * given.grad_acc * ranks, given.lr, given.epochs, given.log_steps,
        _SCHEDULES[given.lr_scheduler_type],
        0.0 if given.lr_scheduler_type == "constant" else given.warmup_ratio, given.num_workers, given.save_steps,
        given.save_total_limit,
    )  # fmt: skip


def recipe_of(command: OfficialCommand, schema: str, language: str) -> str:
    """The recipe, as YAML. language: of texts without a prefix that names it."""
    name = re.sub(r"[^\w-]+", "-", command.output_dir.name).strip("-") or "official"
    sources = [_source(command.train_file, "train")]
    splits = "splits: {validation: 0.02, test: 0.02}     # the command has no --eval_file"
    if command.eval_file is not None:
        sources.append(_source(command.eval_file, "validation"))
        splits = "splits: {validation: 0, test: 0}"
    listed = "\n".join(f"    - {source}" for source in sources)
    rates = ", ".join(
        f"{group}: {command.lr:g}"
        for group in ("audio_front", "audio_layers", "projector", "decoder_layers", "embeddings")
    )
    return f"""\
# yaml-language-server: $schema={schema}
# What the official script does with these arguments (caspi init --official). Not carried over: its labels, which it
# counts from the wrong side of padded batches, and the type of its optimizer's weights (bf16; here fp32).
#   caspi run NAME.yaml
name: {name}
language: {language}                      # of texts without a prefix such as `language {language}<asr_text>`
corpus:
  path: {json.dumps(f"{command.output_dir}/corpus", ensure_ascii=False)}
  sources:
{listed}
  {splits}
model: {{start: {json.dumps(_released(command.model_path), ensure_ascii=False)}}}
train:
  path: {json.dumps(f"{command.output_dir}/train", ensure_ascii=False)}
  effective_batch: {command.utterances_a_step}               # batch_size x grad_acc x processes
  workers: {command.num_workers}
  log_every: {command.log_steps}
  evaluate: {{every: {command.save_steps}, keep: {command.save_total_limit}}}
  stages:
    - name: all                          # the script trains everything at one rate
      epochs: {command.epochs:g}
      groups: {{{rates}}}
      schedule: {{kind: {command.schedule}, warmup_ratio: {command.warmup_ratio:g}}}
      weight_decay: 0.0
      betas: [0.9, 0.999]
"""


def _source(file: Path, split: str) -> str:
    outside = ", allow_outside: true" if _reads_outside(file) else ""
    path, name = (json.dumps(text, ensure_ascii=False) for text in (str(file), file.stem))
    return f"{{kind: manifest, path: {path}, name: {name}, split: {split}{outside}}}"


def _reads_outside(file: Path) -> bool:
    """Whether the first lines of the file name audio outside of its folder. Raises UsageError if there is no file."""
    home = os.path.abspath(file.parent)
    try:
        with file.open(encoding="utf-8") as lines:
            rows: list[Any] = [json.loads(line) for _, line in zip(range(100), lines, strict=False)]
        paths = [os.path.normpath(os.path.join(home, str(row["audio"]))) for row in rows]
    except OSError as error:
        raise UsageError(f"--official: {file}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"--official: {file} is not JSONL with audio and text in every line ({error})") from error
    return any(not path.startswith(home + os.sep) for path in paths)


def _released(model: str) -> str:
    """The name of the same weights for transformers."""
    return f"{model}-hf" if re.fullmatch(r"Qwen/Qwen3-ASR-[\d.]+B", model) else model
