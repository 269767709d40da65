"""caspi combine: several evaluations become one."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from caspi import commands
from caspi.errors import UsageError


def evaluation(folder: Path, name: str, errors: float, seed: int, utterances: int = 60) -> Path:
    """Scored transcripts with this share of wrong words."""
    draw = random.Random(seed)
    words = ["בית", "ספר", "ילד", "שמש", "ים", "הר", "עץ", "דרך"]
    lines = []
    for number in range(utterances):
        reference = [words[(number * 7 + place * 3) % len(words)] for place in range(8)]
        heard = [word if draw.random() > errors else f"{word}ים" for word in reference]
        texts = {"reference": " ".join(reference), "hypothesis": " ".join(heard)}
        lines.append({"id": f"u{number}", **texts, "group": f"g{number % 6}"})
    path = folder / f"{name}.jsonl"
    path.write_text("\n".join(json.dumps(line, ensure_ascii=False) for line in lines), encoding="utf-8")
    commands.score.run(path, "Hebrew", folder / name)
    return folder / name


def test_three_systems_are_better_than_each(tmp_path: Path) -> None:
    systems = [evaluation(tmp_path, name, errors, seed) for seed, (name, errors) in enumerate(
        {"a": 0.2, "b": 0.15, "c": 0.2}.items()
    )]  # fmt: skip
    outcome = commands.combine.run(systems, tmp_path / "voted")
    found = json.loads((tmp_path / "voted" / "report.json").read_text())
    assert found["best_system"] == str(systems[1])
    low, high = found["gain"]["interval"]
    assert 0 < low < found["gain"]["points"] < high
    assert found["oracle_wer"] < found["leaderboard"]["wer"] + 0.1
    assert "points" in outcome.line
    assert "better than" in outcome.line
    again = commands.compare.run(systems[1], tmp_path / "voted", tmp_path / "compared")
    assert again.line.startswith("B is better than A")


def test_a_system_beside_itself_gains_nothing(tmp_path: Path) -> None:
    one = evaluation(tmp_path, "a", 0.2, 0)
    outcome = commands.combine.run([one, one], tmp_path / "voted")
    assert "no better than" in outcome.line
    assert outcome.summary["gain"]["points"] == 0
    assert outcome.summary["oracle_wer"] == outcome.summary["leaderboard"]["wer"]


def test_what_it_refuses(tmp_path: Path) -> None:
    one = evaluation(tmp_path, "a", 0.2, 0)
    with pytest.raises(UsageError, match="two evaluations or more"):
        commands.combine.run([one], tmp_path / "voted")
    other = evaluation(tmp_path, "b", 0.2, 1, utterances=30)
    with pytest.raises(UsageError, match="different utterances"):
        commands.combine.run([one, other], tmp_path / "voted")
    with pytest.raises(UsageError, match=r"no results\.jsonl"):
        commands.combine.run([one, tmp_path / "none"], tmp_path / "voted")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes").write_text("mine")
    with pytest.raises(UsageError, match="no caspi combine made it"):
        commands.combine.run([one, one], tmp_path / "mine")
