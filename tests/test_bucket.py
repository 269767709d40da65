"""A run in a bucket: snapshots are whole, another machine goes on, nothing else is touched."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caspi import bucket as buckets
from caspi.bucket import SNAPSHOT, Bucket, kept_in_bucket
from caspi.errors import CaspiError, UsageError
from caspi.interrupts import ended_by_sigterm

Tree = dict[str, bytes]


def write(folder: Path, files: Tree) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def tree(folder: Path) -> Tree:
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {name: content for name, content in found.items() if name != "bucket.json"}


def url(tmp_path: Path) -> str:
    return (tmp_path / "bucket").as_uri()


def machine(tmp_path: Path, name: str) -> tuple[Bucket, Path]:
    folder = tmp_path / name / "run"
    return Bucket(url(tmp_path), {"run": folder}, folder.parent), folder


NAMES = st.from_regex(r"[a-z]{1,3}(/[a-z]{1,3}){0,2}\.(json|bin)", fullmatch=True)
TREES = st.dictionaries(NAMES, st.binary(max_size=40), max_size=5)


@given(st.lists(TREES, min_size=1, max_size=4))
def test_another_machine_has_the_last_snapshot(tmp_path_factory: pytest.TempPathFactory, states: list[Tree]) -> None:
    tmp_path = tmp_path_factory.mktemp("machines")
    first, folder = machine(tmp_path, "first")
    first.pull()
    for files in states:
        for path in folder.iterdir() if folder.exists() else ():
            if path.name != "bucket.json":
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        try:
            write(folder, files)
        except (NotADirectoryError, IsADirectoryError, FileExistsError):  # `a.bin` and `a.bin/b.bin`
            continue
        first.push()
    here = tree(folder)
    second, other = machine(tmp_path, "second")
    assert second.pull() == len(here)
    assert tree(other) == here
    objects = {path.name for path in (tmp_path / "bucket" / "objects").iterdir()}
    assert objects == set(json.loads((tmp_path / "bucket" / SNAPSHOT).read_text())["files"].values())


def test_an_upload_that_was_cut_off_leaves_the_snapshot_before_it(tmp_path: Path) -> None:
    first, folder = machine(tmp_path, "first")
    first.pull()
    write(folder, {"steps.json": b"one", "train/checkpoint-1/model.bin": b"1" * 1000})
    first.push()
    write(folder, {"steps.json": b"two", "train/checkpoint-2/model.bin": b"2" * 1000})
    put, count = first._files.put_file, [0]

    def cut_off(source: str, target: str) -> None:
        count[0] += 1
        if count[0] == 2:
            Path(target).write_bytes(b"2" * 10)
            raise KeyboardInterrupt  # the machine is gone
        put(source, target)

    first._files.put_file = cut_off  # type: ignore[method-assign]
    try:
        with pytest.raises(KeyboardInterrupt):
            first.push()
    finally:
        first._files.put_file = put  # type: ignore[method-assign]
    second, other = machine(tmp_path, "second")
    second.pull()
    assert tree(other) == {"steps.json": b"one", "train/checkpoint-1/model.bin": b"1" * 1000}
    write(other, {"train/checkpoint-2/model.bin": b"2" * 1000})
    second.push()
    third, last = machine(tmp_path, "third")
    third.pull()
    assert tree(last)["train/checkpoint-2/model.bin"] == b"2" * 1000, "the part of an object was replaced"


def test_a_moment_in_which_files_change_is_no_snapshot(tmp_path: Path) -> None:
    first, folder = machine(tmp_path, "first")
    first.pull()
    write(folder, {"a.json": b"1", "b.json": b"1", "log.jsonl": b"1"})
    put, changes = first._files.put_file, [1]

    def slow(source: str, target: str) -> None:
        put(source, target)
        if changes[0]:
            changes[0] -= 1
            write(folder, {"a.json": b"22", "b.json": b"22"})

    first._files.put_file = slow  # type: ignore[method-assign]
    try:
        assert first.push()
        second, other = machine(tmp_path, "second")
        second.pull()
        assert tree(other) == {"a.json": b"22", "b.json": b"22", "log.jsonl": b"1"}
    finally:
        first._files.put_file = put  # type: ignore[method-assign]


def test_links_locks_and_what_is_being_written(tmp_path: Path) -> None:
    first, folder = machine(tmp_path, "first")
    first.pull()
    write(folder, {
        "train/checkpoint-1/model.bin": b"1", "train/lock": b"", "train/.partial/checkpoint-2/model.bin": b"2",
        "x.json.partial": b"3", "train/uploading/model.bin": b"4",
    })  # fmt: skip
    os.symlink("checkpoint-1", folder / "train" / "best")
    first.push()
    second, other = machine(tmp_path, "second")
    second.pull()
    assert os.readlink(other / "train" / "best") == "checkpoint-1"
    assert set(tree(other)) == {"train/checkpoint-1/model.bin"}


def test_the_same_machine_goes_on_with_what_it_has(tmp_path: Path) -> None:
    first, folder = machine(tmp_path, "first")
    first.pull()
    write(folder, {"steps.json": b"one"})
    first.push()
    write(folder, {"steps.json": b"newer than the bucket"})
    again, _ = machine(tmp_path, "first")
    assert again.pull() == 0
    assert tree(folder) == {"steps.json": b"newer than the bucket"}


def test_a_machine_that_was_replaced_writes_no_more(tmp_path: Path) -> None:
    first, folder = machine(tmp_path, "first")
    first.pull()
    write(folder, {"steps.json": b"one"})
    first.push()
    second, other = machine(tmp_path, "second")
    second.pull()
    write(folder, {"steps.json": b"of the first"})
    with pytest.raises(UsageError, match="another machine goes on"):
        first.push()
    write(other, {"steps.json": b"of the second"})
    second.push()
    returned, _ = machine(tmp_path, "first")
    returned.pull()
    assert tree(folder) == {"steps.json": b"of the second"}


def test_what_it_refuses(tmp_path: Path) -> None:
    first, folder = machine(tmp_path, "first")
    first.pull()
    write(folder, {"steps.json": b"one"})
    first.push()
    other, mine = machine(tmp_path, "second")
    write(mine, {"steps.json": b"another run"})
    with pytest.raises(UsageError, match="holds a run, and so does"):
        other.pull()
    assert tree(mine) == {"steps.json": b"another run"}
    with pytest.raises(UsageError, match="--bucket is empty"):
        Bucket("", {"run": folder}, folder)
    with pytest.raises(UsageError, match="--bucket nothing://x"):
        Bucket("nothing://x", {"run": folder}, folder)
    [stored] = (tmp_path / "bucket" / "objects").iterdir()
    stored.write_bytes(b"spoilt")
    third, _ = machine(tmp_path, "third")
    with pytest.raises(CaspiError, match=r"the content of run/steps\.json is damaged"):
        third.pull()
    snapshot = json.loads((tmp_path / "bucket" / SNAPSHOT).read_text())
    for name in ("run/../../x", "other/x"):
        (tmp_path / "bucket" / SNAPSHOT).write_text(json.dumps(snapshot | {"files": {name: stored.name}}))
        with pytest.raises(CaspiError, match="does not belong to this run"):
            machine(tmp_path, "fourth")[0].pull()
    (tmp_path / "bucket" / SNAPSHOT).write_text("[]")
    with pytest.raises(CaspiError, match="is not a snapshot"):
        machine(tmp_path, "fifth")[0].pull()
    (tmp_path / "full").write_text("a file")
    with pytest.raises(CaspiError, match=r"bucket file:.*full"):
        Bucket((tmp_path / "full").as_uri(), {"run": tmp_path / "sixth"}, tmp_path).pull()


def test_it_is_kept_up_to_date_in_the_background(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buckets, "_LOOK_SECONDS", 0.02)
    first, folder = machine(tmp_path, "first")
    written, push = threading.Event(), first.push

    def pushed() -> bool:
        if changed := push():
            written.set()
        return changed

    monkeypatch.setattr(first, "push", pushed)
    with kept_in_bucket(first):
        write(folder, {"steps.json": b"one"})
        assert written.wait(20)
    with pytest.raises(ZeroDivisionError), kept_in_bucket(first):  # noqa: PT012
        write(folder, {"steps.json": b"two"})
        raise ZeroDivisionError
    second, other = machine(tmp_path, "second")
    second.pull()
    assert tree(other) == {"steps.json": b"two"}, "also after an error"


def test_other_files_of_the_same_folders_are_left_alone(tmp_path: Path) -> None:
    first, folder = machine(tmp_path, "first")
    first.pull()
    write(folder, {"train/checkpoint-1/model.bin": b"1", "steps.json": b"1"})
    write(folder.parent, {"thesis.txt": b"mine"})
    first.push()
    assert not any("thesis" in name for name in json.loads((tmp_path / "bucket" / SNAPSHOT).read_text())["files"])
    second, other = machine(tmp_path, "second")
    second.pull()
    shutil.rmtree(other / "train" / "checkpoint-1")
    second.push()
    write(folder, {"notes.txt": b"written since"})
    returned, _ = machine(tmp_path, "first")
    returned.pull()
    assert tree(folder) == {"steps.json": b"1", "notes.txt": b"written since"}, "what no snapshot had stays"
    assert (folder.parent / "thesis.txt").read_bytes() == b"mine"


def test_what_is_pruned_while_it_is_uploaded_is_in_the_snapshot(tmp_path: Path) -> None:
    first, folder = machine(tmp_path, "first")
    first.pull()
    write(folder, {"train/checkpoint-1/model.bin": b"1" * 100, "train/checkpoint-2/model.bin": b"2" * 100})
    put = first._files.put_file

    def pruning(source: str, target: str) -> None:
        shutil.rmtree(folder / "train" / "checkpoint-1", ignore_errors=True)
        put(source, target)

    first._files.put_file = pruning  # type: ignore[method-assign]
    try:
        assert first.push()
    finally:
        first._files.put_file = put  # type: ignore[method-assign]
    second, other = machine(tmp_path, "second")
    second.pull()
    assert set(tree(other)) == {"train/checkpoint-1/model.bin", "train/checkpoint-2/model.bin"}
    assert not (folder.parent / ".bucket").exists(), "links are removed"


def test_what_a_cut_off_upload_left_is_deleted_by_the_next_machine(tmp_path: Path) -> None:
    first, folder = machine(tmp_path, "first")
    first.pull()
    write(folder, {"steps.json": b"1"})
    first.push()
    left = tmp_path / "bucket" / "objects" / ("a" * 64)
    left.write_bytes(b"half")
    second, _ = machine(tmp_path, "second")
    second.pull()
    assert not left.exists()
    assert len(list((tmp_path / "bucket" / "objects").iterdir())) == 1


def test_a_replaced_machine_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buckets, "_LOOK_SECONDS", 0.02)
    first, folder = machine(tmp_path, "first")

    def goes_on() -> None:
        with kept_in_bucket(first), ended_by_sigterm():
            write(folder, {"steps.json": b"1"})
            machine(tmp_path, "second")[0].pull()
            write(folder, {"steps.json": b"2"})
            time.sleep(30)

    with pytest.raises(UsageError, match="another machine goes on"):
        goes_on()
