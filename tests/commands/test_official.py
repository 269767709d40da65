"""Commands of the official fine-tuning script become recipes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import soundfile

from caspi import commands, recipe
from caspi.commands.official import read_command
from caspi.errors import UsageError
from tests.conftest import tone

COMMAND = """torchrun --nproc_per_node=2 finetuning/qwen3_asr_sft.py \\
  --model_path Qwen/Qwen3-ASR-1.7B \\
  --train_file {folder}/train.jsonl \\
  --eval_file {folder}/eval.jsonl \\
  --output_dir {folder}/out \\
  --batch_size 8 --grad_acc 4 --lr 1e-5 --epochs 2 --lr_scheduler_type cosine --warmup_ratio 0.05 \\
  --save_steps 100 --save_total_limit 2 --log_steps 5 --num_workers 3 --pin_memory 1 --resume 1"""


def written(folder: Path, audio: Path) -> None:
    audio.mkdir(parents=True, exist_ok=True)
    for name, texts in {"train": ("שלום עולם", "מה שלומך היום", "תודה רבה לך"), "eval": ("בוקר טוב לכולם",)}.items():
        lines = []
        for number, text in enumerate(texts):
            path = audio / f"{name}-{number}.wav"
            soundfile.write(path, tone(2.0, seed=number + len(texts)), 16_000)
            lines.append({"audio": str(path), "text": f"language Hebrew<asr_text>{text}", "prompt": "רשימה"})
        (folder / f"{name}.jsonl").write_text("\n".join(json.dumps(line, ensure_ascii=False) for line in lines))


def test_a_command_becomes_a_recipe_that_prepares_the_same_data(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    written(folder, tmp_path / "elsewhere")
    outcome = commands.init.run_official(COMMAND.format(folder=folder), tmp_path / "mine.yaml", None)
    made = recipe.load(outcome.path)
    train = made.require_train()
    assert made.model.start == "Qwen/Qwen3-ASR-1.7B-hf"
    assert train.effective_batch == 8 * 4 * 2
    assert (train.evaluate.every, train.evaluate.keep, train.log_every, train.workers) == (100, 2, 5, 3)
    [stage] = train.stages
    assert {group.lr for group in stage.groups.values()} == {1e-5}
    assert len(stage.groups) == 5
    assert (stage.epochs, stage.schedule.kind, stage.schedule.warmup_ratio) == (2, "cosine", 0.05)
    assert (stage.weight_decay, stage.betas) == (0.0, (0.9, 0.999))
    summary = commands.prepare.run(made).summary
    utterances = {name: split["utterances"] for name, split in summary["splits"].items()}
    assert utterances == {"train": 3, "validation": 1, "test": 0}


def test_the_scripts_defaults_and_audio_beside_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path, tmp_path / "clips")
    outcome = commands.init.run_official("", None, "he")
    made = recipe.load(outcome.path)
    assert outcome.path == Path("qwen3-asr-finetuning-out.yaml")
    assert made.require_train().effective_batch == 128
    assert made.require_train().stages[0].schedule.kind == "linear"
    assert "allow_outside: true" not in outcome.path.read_text()
    assert made.corpus.splits.validation == 0.02
    with pytest.raises(UsageError, match="exists: give another file"):
        commands.init.run_official("", None, None)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("qwen3_asr_sft.py --learning_rate 3", "unrecognized arguments: --learning_rate"),
        ("--lr fast", "argument --lr: invalid float value"),
        ("--lr_scheduler_type polynomial", "invalid choice: 'polynomial'"),
        ("--train_file 'open", "No closing quotation"),
        ("--train_file none.jsonl", "none.jsonl: No such file"),
    ],
)
def test_what_is_not_understood_is_said(command: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        commands.init.run_official(command, tmp_path / "mine.yaml", None)
    assert not (tmp_path / "mine.yaml").exists()


def test_a_file_that_is_no_jsonl_is_told(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text("audio,text\n")
    with pytest.raises(UsageError, match="is not JSONL with audio and text"):
        commands.init.run_official(f"--train_file {tmp_path / 'train.jsonl'}", tmp_path / "mine.yaml", None)


def test_processes_are_counted_only_before_the_script() -> None:
    assert read_command("python qwen3_asr_sft.py --batch_size 2 --grad_acc 1").utterances_a_step == 2
    eight = "torchrun --nproc-per-node 8 a/qwen3_asr_sft.py --batch_size 2 --grad_acc 1"
    assert read_command(eight).utterances_a_step == 16
