"""caspi average --with: models between two, by group, and the one that keeps other languages."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from caspi import commands
from caspi.commands.interpolate import Alpha, Point, choose
from caspi.errors import UsageError
from caspi.model.files import read_weights
from caspi.model.groups import stack_of
from caspi.model.loading import TINY
from caspi.training.checkpoint.averaging import interpolate


def point(share: float, wer: float, **others: float) -> Point:
    return Point(Alpha(share, {}), wer, others)


def test_the_best_point_within_the_budget_is_chosen() -> None:
    points = [
        point(0, 1.2, Finnish=0.2, Turkish=0.4), point(0.5, 0.6, Finnish=0.2, Turkish=0.42),
        point(0.8, 0.2, Finnish=0.22, Turkish=0.44), point(1, 0.1, Finnish=0.4, Turkish=0.8),
    ]  # fmt: skip
    assert points[2].forgetting(points[0]) == pytest.approx(0.1)
    assert choose(points, 0.11) is points[2]
    assert choose(points, 0.05) is points[1]
    assert choose(points, 5) is points[3]
    assert choose(points, 0.01) is None, "the model before training is no answer"


def test_weights_are_mixed_by_group(small_run: Path, tmp_path: Path) -> None:
    after, before = (small_run / "best").resolve(), TINY
    new, old = read_weights(after), read_weights(before)
    out = tmp_path / "out"
    out.mkdir()
    interpolate(after, before, 0.25, {"embeddings": 1.0, "projector": 0.0}, out)
    mixed = read_weights(out)
    seen = set()
    for name, tensor in mixed.items():
        share = {"embeddings": 1.0, "projector": 0.0}.get(stack_of(name), 0.25)
        seen.add(stack_of(name))
        expected = share * new[name].double() + (1 - share) * old[name].double()
        assert torch.equal(tensor, expected.to(new[name].dtype)), name
    assert seen >= {"audio_front", "audio_layers", "projector", "decoder_layers", "embeddings"}


def test_a_run_and_other_languages(small_run: Path, small_corpus: Path) -> None:
    outcome = commands.interpolate.run(small_run, "tiny", ["0.5"], [str(small_corpus)], 9.0)
    found = json.loads((small_run / "interpolated" / "report.json").read_text())
    assert [one["alpha"] for one in found["points"]] == ["0", "0.5", "1"]
    assert outcome.path == small_run / "interpolated"
    assert (outcome.path / "model.safetensors").is_file()
    assert not (outcome.path / "tried").exists()
    assert "WER between the two models" in (outcome.path / "report.html").read_text("utf-8")
    none = commands.interpolate.run(small_run, "tiny", ["0.5"], [str(small_corpus)], 0.0)
    if found["points"][1]["forgetting"] > 0 and found["points"][2]["forgetting"] > 0:
        assert "no model between the two forgets at most 0" in none.line
        assert none.path.name == "report.html"


def test_what_it_refuses(small_run: Path, small_corpus: Path, tmp_path: Path) -> None:
    for alpha in ("2", "x", "0.5,embedding=1", "0.5,embeddings=-1", "0.5,embeddings"):
        with pytest.raises(UsageError, match="--alpha"):
            commands.interpolate.run(small_run, "tiny", [alpha], [str(small_corpus)], 0.1)
    with pytest.raises(UsageError, match="needs --retention"):
        commands.interpolate.run(small_run, "tiny", [], [], 0.1)
    with pytest.raises(UsageError, match="is not a finished run"):
        commands.interpolate.run(tmp_path, "tiny", [], [str(small_corpus)], 0.1)
