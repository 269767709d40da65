"""The corpus stays the same after a kill, a full disk, a decoder crash, with another engine, or an added source."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from caspi import commands
from caspi.corpus.pipeline import shards
from caspi.corpus.pipeline.engines import local
from caspi.corpus.pipeline.process import Rules
from caspi.corpus.utterance import FileAudio, Recording
from caspi.errors import CaspiError, UsageError
from tests.conftest import tone
from tests.support import fingerprints_of, utterances, write_manifest

LETTERS = "אבגדהוזחטיכלמנסעפצקרשת"


def clips(count: int, first: int = 0) -> list[tuple[np.ndarray, str]]:
    draw = random.Random(first)
    return [
        (tone(1.0, seed=first + n), " ".join("".join(draw.choices(LETTERS, k=4)) for _ in range(3)) + " אחת")
        for n in range(count)
    ]


def prepare_in_a_process(recipe: Path, *overrides: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "caspi", "prepare", str(recipe), *overrides],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


@pytest.mark.slow
def test_a_killed_run_resumes_with_the_same_corpus(tmp_path: Path, recipe_of) -> None:  # type: ignore[no-untyped-def]
    path = write_manifest(tmp_path / "in", clips(400))
    whole = recipe_of([{"kind": "manifest", "path": path}], workers=2, path=str(tmp_path / "whole"))
    expected = commands.prepare.run(whole).summary["splits"]
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace(str(tmp_path / "whole"), str(tmp_path / "killed")))
    draw = random.Random(0)
    work = tmp_path / "killed.work"
    seen = []
    for _ in range(4):
        process = prepare_in_a_process(recipe)
        deadline = time.monotonic() + 60
        before = len(list(work.glob("*/*.arrow")))
        while len(list(work.glob("*/*.arrow"))) <= before and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        time.sleep(draw.random() * 0.05)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        seen.append(len(list(work.glob("*/*.arrow"))))
        if not work.exists():
            break
    assert seen[0] > 0
    finished = prepare_in_a_process(recipe)
    assert finished.communicate()[1] is not None
    assert finished.returncode == 0
    assert fingerprints_of(tmp_path / "killed") == {name: split["fingerprint"] for name, split in expected.items()}
    assert not work.exists()
    assert not (tmp_path / "killed.partial").exists()


def test_parts_of_an_earlier_run_are_not_made_again(tmp_path: Path, recipe_of, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    path = write_manifest(tmp_path / "in", clips(150))
    made = recipe_of([{"kind": "manifest", "path": path}])
    processed: list[str] = []
    real = shards.process

    def watched(recording: Recording, rules: Rules):  # type: ignore[no-untyped-def]
        processed.append(recording.id)
        if len(processed) == 100:
            raise KeyboardInterrupt
        return real(recording, rules)

    monkeypatch.setattr(shards, "process", watched)
    with pytest.raises(KeyboardInterrupt):
        commands.prepare.run(made)
    done = processed[:64]
    processed.clear()
    monkeypatch.setattr(shards, "process", lambda r, rules: processed.append(r.id) or real(r, rules))
    summary = commands.prepare.run(made).summary
    assert summary["kept"] == 150
    assert not set(done) & set(processed)


def test_a_truncated_part_is_never_read(tmp_path: Path) -> None:
    folder = tmp_path / "parts"
    folder.mkdir()
    recordings = [Recording(f"r{n}", FileAudio(tmp_path / "no.wav"), "s", "g", "Hebrew", "שלום") for n in range(3)]
    [block] = shards.blocks(iter(recordings), 0)
    shards.make_shard(block, folder, Rules())
    [path], count = shards.made_shards(folder)
    assert count == 3
    (folder / f"{path.name}.99.partial").write_bytes(path.read_bytes()[:100])
    assert shards.made_shards(folder) == ([path], 3)


def test_parts_after_a_gap_are_ignored(tmp_path: Path) -> None:
    for name in ("000000000-064.arrow", "000000064-010.arrow", "000000100-064.arrow"):
        (tmp_path / name).touch()
    found, following = shards.made_shards(tmp_path)
    assert ([path.name for path in found], following) == (["000000000-064.arrow", "000000064-010.arrow"], 74)


class Fatal:
    """Audio whose decoder crashes the process."""

    def open(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_decoder_crash_loses_only_its_recording(tmp_path: Path) -> None:
    write_manifest(tmp_path, clips(3))
    recordings = [
        Recording(
            f"r{n}", Fatal() if n == 1 else FileAudio(tmp_path / f"m-{n}.flac"), "s", f"g{n}", "Hebrew", "שלום לך"
        )  # type: ignore[arg-type]
        for n in range(3)
    ]
    folder = tmp_path / "parts"
    folder.mkdir()
    blocks = [shards.Block(0, recordings[:2]), shards.Block(2, recordings[2:])]
    assert sum(made.recordings for made in local(blocks, folder, Rules(), 2)) == 3
    paths, count = shards.made_shards(folder)
    assert count == 3
    outcomes = {
        identifier: reason
        for path in paths
        for batch in shards.read_shard(path)
        for identifier, reason in zip(*(batch.column(c).to_pylist() for c in ("id", "reason")), strict=True)
    }
    assert outcomes == {f"r{n}": "decoder_crashed" if n == 1 else None for n in range(3)}


def test_a_full_disk_stops_clearly_and_loses_nothing(
    tmp_path: Path, recipe_of, monkeypatch: pytest.MonkeyPatch
) -> None:  # type: ignore[no-untyped-def]
    path = write_manifest(tmp_path / "in", clips(150))
    made = recipe_of([{"kind": "manifest", "path": path}])
    real, written = Path.rename, []

    def full(self: Path, target: Path) -> Path:
        written.append(target)
        if len(written) == 2:
            raise OSError(28, "No space left on device")
        return real(self, target)

    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(CaspiError, match="is full; nothing is lost"):
        commands.prepare.run(made)
    monkeypatch.setattr(Path, "rename", real)
    assert len(list((tmp_path / "corpus.work").glob("*/*.arrow"))) == 1
    assert commands.prepare.run(made).summary["kept"] == 150


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("mount"), reason="needs root to mount a small disk")
def test_a_real_full_disk_loses_nothing(tmp_path: Path, recipe_of) -> None:  # type: ignore[no-untyped-def]
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(disk)], check=False).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        path = write_manifest(tmp_path / "in", clips(150))
        made = recipe_of([{"kind": "manifest", "path": path}], path=str(disk / "corpus"))
        with pytest.raises(CaspiError, match="is full; nothing is lost"):
            commands.prepare.run(made)
        assert not (disk / "corpus").exists()
        subprocess.run(["mount", "-o", "remount,size=100m", str(disk)], check=True)
        assert commands.prepare.run(made).summary["kept"] == 150
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_only_an_added_source_is_prepared(tmp_path: Path, recipe_of, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    one = {"kind": "manifest", "path": write_manifest(tmp_path / "one", clips(80), "one")}
    two = {"kind": "manifest", "path": write_manifest(tmp_path / "two", [*clips(40, 900), *clips(3)], "two")}
    commands.prepare.run(recipe_of([one]))
    first = utterances(tmp_path / "corpus")
    processed: list[str] = []
    real = shards.process
    monkeypatch.setattr(shards, "process", lambda r, rules: processed.append(r.id) or real(r, rules))
    grown = commands.prepare.run(recipe_of([one, two])).summary
    assert processed
    assert all(identifier.startswith("two") for identifier in processed)
    assert grown["reused"] == 1
    assert grown["rejected"] == {"duplicate_audio": 3}
    monkeypatch.undo()
    at_once = commands.prepare.run(recipe_of([one, two], path=str(tmp_path / "at-once"))).summary
    assert at_once["splits"] == grown["splits"]
    assert all(grown[key] == at_once[key] for key in ("input", "kept", "rejected"))
    assert first.items() <= utterances(tmp_path / "corpus").items()


def test_a_changed_rule_or_input_is_prepared_again(tmp_path: Path, recipe_of) -> None:  # type: ignore[no-untyped-def]
    path = write_manifest(tmp_path / "in", clips(10))
    source = {"kind": "manifest", "path": path}
    assert commands.prepare.run(recipe_of([source])).summary["reused"] == 0
    assert commands.prepare.run(recipe_of([source])).summary["reused"] == 1
    again = commands.prepare.run(recipe_of([source], text={"maqaf": "space"})).summary
    assert again["reused"] == 0
    path.write_text(path.read_text() + "\n" + path.read_text().splitlines()[0].replace("m-0", "m-1"))
    assert commands.prepare.run(recipe_of([source], text={"maqaf": "space"})).summary["reused"] == 0


@pytest.mark.slow
def test_ray_makes_the_same_corpus(tmp_path: Path, recipe_of) -> None:  # type: ignore[no-untyped-def]
    ray = pytest.importorskip("ray")
    path = write_manifest(tmp_path / "in", clips(150))
    here = commands.prepare.run(recipe_of([{"kind": "manifest", "path": path}])).summary["splits"]
    made = recipe_of([{"kind": "manifest", "path": path}], path=str(tmp_path / "ray"))
    try:
        assert commands.prepare.run(made, "ray").summary["splits"] == here
    finally:
        ray.shutdown()


def test_an_unknown_engine_is_an_error(recipe_of: Callable[..., object], tmp_path: Path) -> None:
    path = write_manifest(tmp_path / "in", clips(1))
    with pytest.raises(UsageError, match="--engine spark: not one of local, ray"):
        commands.prepare.run(recipe_of([{"kind": "manifest", "path": path}]), "spark")  # type: ignore[arg-type]


def test_two_simultaneous_runs_are_refused(tmp_path: Path, recipe_of) -> None:  # type: ignore[no-untyped-def]
    from caspi import atomic_output

    path = write_manifest(tmp_path / "in", clips(2))
    made = recipe_of([{"kind": "manifest", "path": path}])
    with (
        atomic_output.locked(atomic_output.work_folder(tmp_path / "corpus", "prepare"), "prepare"),
        pytest.raises(UsageError, match="another caspi prepare is running"),
    ):
        commands.prepare.run(made)
    assert commands.prepare.run(made).summary["kept"] == 2


def test_a_kill_between_the_last_renames_loses_nothing(tmp_path: Path, recipe_of) -> None:  # type: ignore[no-untyped-def]
    path = write_manifest(tmp_path / "in", clips(5))
    made = recipe_of([{"kind": "manifest", "path": path}])
    commands.prepare.run(made)
    (tmp_path / "corpus").rename(tmp_path / "corpus.replaced")
    assert commands.prepare.run(made).summary["reused"] == 1
    assert not (tmp_path / "corpus.replaced").exists()
