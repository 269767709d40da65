"""The demo itself, a fiftieth of its size: every command runs and every file is there. The real one is `make demo`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from caspi import commands
from caspi.commands import demo
from caspi.errors import UsageError
from tests.conftest import small_overrides


@pytest.mark.slow
def test_the_whole_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "demo"
    monkeypatch.setattr(demo, "_overrides", lambda folder, seed: small_overrides(folder))
    monkeypatch.setattr(demo, "_OTHERS", 1)
    monkeypatch.setattr(demo, "_STRESSED", 2)
    outcome = demo.run(out, 0)
    assert outcome.path == out / "report.html"
    assert outcome.line.startswith("WER ")
    assert outcome.line.endswith("on 12 held-out utterances, 2 unseen voices")
    run = [step["command"].split()[1] for step in outcome.summary["steps"]]
    of_run = ["prepare", "audit", "plan", "train", "average", "evaluate", "evaluate"]
    assert run == ["prepare", "evaluate", *of_run, "transcribe"]
    for name in (
        "corpus",
        "corpus-audit",
        "others",
        "train",
        "evaluation",
        "evaluation-before",
        "evaluation-start",
    ):
        assert (out / name / "report.html").is_file()
        assert (out / name / "report.json").is_file()
    summary = json.loads((out / "evaluation" / "summary.json").read_text())
    assert summary["synthetic"] == summary["utterances"] == 12
    assert summary["stress"]["conditions"]["clean"]["utterances"] == 2
    [languages] = summary["retention"].values()
    assert languages.keys() == outcome.summary["others_before"].keys() == {"Spanish", "Italian", "Finnish", "Turkish"}
    named = json.loads((out / "evaluation-before" / "summary.json").read_text())["named"]
    assert named.keys() == languages.keys()
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "WER before" in page
    assert page.index("Transcripts before and after training") < page.index("Commands")
    assert "<audio" in page
    assert "Synthetic speech" in (out / "report.html").read_text(encoding="utf-8")
    assert (out / "subtitles" / "sample.srt").is_file()
    commands.demo.clean(out)  # what begins another demo
    assert [path.name for path in out.iterdir()] == [demo.DEMO_MARK]


def test_a_folder_of_the_users_is_never_deleted(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match="was not made by caspi demo"):
        demo.run(tmp_path, 0)
    assert (tmp_path / "thesis.tex").is_file()
