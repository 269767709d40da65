"""The command line, mostly in real processes, as a user runs it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from caspi import cli, program
from caspi.model.loading import TINY
from tests.conftest import RECIPES, ROOT

COMMANDS = [
    *("demo", "prepare", "audit", "plan", "augment-preview", "train", "average", "evaluate", "score", "compare"),
    *("transcribe", "export", "publish", "serve", "doctor"),
]


def caspi(*arguments: str, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "caspi", *arguments],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
        cwd=cwd,
        env=os.environ | environment,
    )


def test_help_has_an_example_for_every_command() -> None:
    from typer.testing import CliRunner

    for command in COMMANDS:
        result = CliRunner().invoke(cli.app, [command, "--help"])
        assert result.exit_code == 0
        assert f"caspi {command}" in " ".join(result.output.split())
        assert "Example" in result.output


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["prepare", "no-such.yaml"], 2, "recipe no-such.yaml: No such file or directory"),
        (["prepare", str(RECIPES / "demo.yaml"), "corpus.pth=x"], 2, "unknown key; did you mean path?"),
        (
            ["train", str(RECIPES / "demo.yaml"), "corpus.path=/nowhere"],
            2,
            "/nowhere: no such file or folder; caspi prepare RECIPE makes a corpus",
        ),
        (
            ["evaluate", "/nowhere", "/nowhere", "--out", "x"],
            2,
            "/nowhere: no such file or folder; caspi prepare RECIPE makes a corpus",
        ),
        (["transcribe", "tiny", "/no/such.mp3"], 1, "missing_audio"),
        (["average", "/nowhere"], 2, "is not a finished run"),
        (["augment-preview", str(RECIPES / "demo.yaml"), "--stage", "x"], 2, "--stage x: not one of letters, all"),
        (["plan", str(RECIPES / "demo.yaml"), "--gpu", "abacus"], 2, "--gpu abacus: not one of a100-40gb"),
        (["score", "/nowhere.csv"], 2, "No such file"),
        (["compare", "/nowhere", "/nowhere"], 2, "no results.jsonl"),
        (["export", "/nowhere", "--to", "hf", "--out", "x"], 2, "no model at /nowhere"),
        (["frobnicate"], 2, "No such command"),
        (["train"], 2, "Missing argument"),
    ],
)
def test_user_errors_give_one_line_and_the_right_exit_code(
    arguments: list[str],
    code: int,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Runs in this process, because a new one needs four seconds to import torch."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["caspi", *arguments])
    with pytest.raises(SystemExit) as exited:
        program.main()
    output = capfd.readouterr()
    assert list(tmp_path.iterdir()) == [], "a mistake left something behind"
    assert exited.value.code == code, output.err
    assert message in output.err
    assert "Traceback" not in output.err
    assert output.out == ""


@pytest.mark.parametrize("command", ["prepare", "export"])
def test_a_folder_with_user_files_is_never_replaced(command: str, manifest: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("years of work")
    made = tmp_path / "recipe.yaml"
    made.write_text(f"name: t\ncorpus: {{path: {mine}, sources: [{{kind: manifest, path: {manifest}}}]}}\n")
    arguments = ["prepare", str(made)] if command == "prepare" else ["export", "tiny", "--to", "hf", "--out", str(mine)]
    result = caspi(*arguments)
    assert result.returncode == 2, result.stderr
    assert "is not empty" in result.stderr
    assert (mine / "thesis.tex").read_text() == "years of work"


def test_debug_shows_the_traceback() -> None:
    result = caspi("--debug", "prepare", "no-such.yaml")
    assert result.returncode == 2
    assert "Traceback" in result.stderr


def test_an_invalid_model_folder_is_refused(tmp_path: Path, small_corpus: Path) -> None:
    result = caspi("evaluate", str(tmp_path), str(small_corpus), "--out", str(tmp_path / "out"))
    assert result.returncode == 2
    assert "is not a model folder: it has no config.json" in result.stderr
    broken = tmp_path / "broken"
    broken.mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "processor_config.json"):
        (broken / name).write_bytes((TINY / name).read_bytes())
    (broken / "model.safetensors").write_bytes((TINY / "model.safetensors").read_bytes()[:1000])
    result = caspi("evaluate", str(broken), str(small_corpus), "--out", str(tmp_path / "out"))
    assert result.returncode == 2
    assert "cannot load its weights" in result.stderr
    assert "Traceback" not in result.stderr


def test_stdout_holds_only_json(small_corpus: Path, small_run: Path, tmp_path: Path) -> None:
    model = json.loads((small_run / "report.json").read_text())["final"]
    result = caspi("evaluate", model, str(small_corpus), "--out", str(tmp_path), "--limit", "3", "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["utterances"] == 3


def test_plan_gives_steps_and_costs_of_a_recipe(small_recipe, small_corpus: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    from caspi import recipe

    path = tmp_path / "r.yaml"
    path.write_text(recipe.dump(small_recipe))
    result = caspi("plan", str(path), "--gpu", "h200", "--gpus", "2", "--json")
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert [stage["steps"] for stage in found["stages"]] == [3, 6]
    assert all(stage["cost"] > 0 for stage in found["stages"])
    assert found["targets"][0]["target"].startswith("language Hebrew<asr_text>")


def test_dry_run_shows_the_released_shape_without_allocating_it(tmp_path: Path) -> None:
    command = ["train", str(RECIPES / "round2.yaml"), "model.init=random", "model.scale=1.7b", "--dry-run", "--json"]
    peak = tmp_path / "peak"
    # The kernel's figure for the program's own memory: ru_maxrss of a child starts at the size of the process that
    # started it, here a test process that may have held gigabytes.
    program = (
        "import atexit, pathlib, runpy\n"
        "status = pathlib.Path('/proc/self/status')\n"
        f"atexit.register(lambda: pathlib.Path({str(peak)!r}).write_text(status.read_text()))\n"
        "runpy.run_module('caspi', run_name='__main__', alter_sys=True)"
    )
    running = [sys.executable, "-c", program, *command]
    result = subprocess.run(running, check=True, stdout=subprocess.PIPE, cwd=ROOT, timeout=120)
    found = json.loads(result.stdout)
    kilobytes = int(re.search(r"VmHWM:\s+(\d+) kB", peak.read_text())[1])  # type: ignore[index]
    assert found["parameters"] == 2_038_052_480
    first, second = found["stages"]
    assert [row["group"] for row in first["groups"]] == ["projector", "decoder_layers", "embeddings"]
    assert first["trainable"] == 3_148_800 + 12 * (1_409_408_000 // 28) + 2_048 + 311_164_928
    assert second["trainable"] - first["trainable"] == 8 * (302_309_376 // 24) + 2_048
    assert kilobytes < 2_000_000, "the weights would take 8 million"


def test_transcribe_writes_subtitles(tmp_path: Path, speech) -> None:  # type: ignore[no-untyped-def]
    import soundfile

    soundfile.write(tmp_path / "clip.wav", speech, 22_050)
    result = caspi(
        "transcribe",
        "tiny",
        str(tmp_path / "clip.wav"),
        "--language",
        "Spanish",
        "--format",
        "srt",
        "--out",
        str(tmp_path / "subs"),
    )
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "subs" / "clip.srt").read_text(encoding="utf-8").startswith("1\n00:00:00,000 --> ")


def test_doctor_reports_the_tiny_model_and_a_missing_token() -> None:
    result = caspi("doctor", "--json", HF_TOKEN="")
    found = {finding["what"]: finding for finding in json.loads(result.stdout)["findings"]}
    assert found["tiny"]["status"] == "ok"
    assert found["HF_TOKEN"]["status"] == "missing"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["score", "good.csv", "--out", "/proc/nowhere/x"], "/proc/nowhere"),
        (["score", "good.csv", "--out", "good.csv/x"], "good.csv"),
        (["score", "good.csv", "--out", "."], "has no name of its own: give a folder"),
        (["score", "."], "has no name, so there is no default output folder: give --out"),
        (["score", "latin.csv"], "latin.csv is not UTF-8 .*: save it as UTF-8"),
        (["compare", "good.csv", "good.csv"], "is not a results.jsonl file: score it first"),
        (["compare", "good.csv-score", "/"], "/ has no name, so there is no default output folder: give --out"),
    ],
)
def test_unusable_paths_give_a_one_line_error(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    (tmp_path / "good.csv").write_text("reference,hypothesis\nשלום,שלום\n", encoding="utf-8")
    (tmp_path / "latin.csv").write_bytes("reference,hypothesis\nשלום,שלום\n".encode("cp1255"))
    monkeypatch.chdir(tmp_path)

    def run(*command: str) -> int:
        monkeypatch.setattr(sys, "argv", ["caspi", *command])
        with pytest.raises(SystemExit) as exited:
            program.main()
        return int(exited.value.code or 0)

    if "good.csv-score" in arguments:
        assert run("score", "good.csv") == 0
    capsys.readouterr()
    assert run(*arguments) in (1, 2)
    [line] = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("caspi: ")
    assert re.search(message, line)
    assert "unexpected" not in line


_IN_A_CALLBACK = """
import io, sys, time
import soundfile
from caspi import program

class Slow(io.BytesIO):
    def readinto(self, buffer):
        until = time.monotonic() + 0.05
        while time.monotonic() < until:
            pass
        return super().readinto(buffer)

def read():
    clip = io.BytesIO()
    soundfile.write(clip, [0.0] * 100_000, 16_000, format="FLAC")
    print("begins", flush=True)
    while True:
        try:
            soundfile.read(Slow(clip.getvalue()))
        except soundfile.LibsndfileError:
            if not sys.argv[1:]:
                raise

program.app = read
program.main()
"""


@pytest.mark.parametrize("forgets", [["it"], []])
def test_ctrl_c_inside_a_library_s_callback_ends_the_command(forgets: list[str]) -> None:
    """Python only prints it, and libsndfile raises another error; with `forgets`, the caller ignores that error too."""
    command = [sys.executable, "-c", _IN_A_CALLBACK, *forgets]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "begins\n"
        time.sleep(0.5)
        running.send_signal(signal.SIGINT)
        _, stderr = running.communicate(timeout=60)
    assert stderr == "caspi: interrupted; run the same command again to resume from what was saved\n"
    assert running.returncode == 130


def test_an_interrupted_evaluation_says_how_to_resume(small_corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "caspi", "evaluate", "tiny", str(small_corpus), "--out", str(out)]
    with subprocess.Popen([*command, "--stress", "12"], stderr=subprocess.PIPE, text=True, cwd=ROOT) as running:
        deadline = time.monotonic() + 120
        while not out.with_name("out.work").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        stderr = None
        while stderr is None and time.monotonic() < deadline:
            running.send_signal(signal.SIGINT)  # again if a library's clean-up swallowed it, as a user would
            with contextlib.suppress(subprocess.TimeoutExpired):
                _, stderr = running.communicate(timeout=5)
    assert stderr is not None
    assert running.returncode == 130
    assert (
        stderr.strip().splitlines()[-1]
        == "caspi: interrupted; run the same command again to resume from what was saved"
    )
    assert "Traceback" not in stderr
    assert not out.exists()
