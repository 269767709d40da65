"""What a run publishes during training: trackers, model cards, uploads."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from pathlib import Path

import pytest
import yaml
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils.sha import git_hash
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from caspi import commands, recipe
from caspi.errors import UsageError
from caspi.reporting.wording import percent
from caspi.training.checkpoint import files as checkpoints
from caspi.training.checkpoint.uploads import Uploads
from caspi.training.config import HubConfig
from caspi.training.tracking import TensorBoard
from tests.support import metrics, needs, run_recipe, short


def test_tensorboard_contains_the_log_and_the_reports(small_run: Path, small_recipe: recipe.Recipe) -> None:
    events = EventAccumulator(str(small_run / "tensorboard" / "2-all"))
    events.Reload()
    scalars = {tag: [event.value for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    rows = [json.loads(line) for line in (small_run / "metrics.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows if row["stage"] == "all" and "loss" in row]
    assert scalars["train/loss"] == pytest.approx(losses, rel=1e-6)
    assert len(scalars["train/lr/decoder_layers"]) == len(losses)
    assert len(scalars["eval/wer"]) == 3
    texts = {tag: events.Tensors(tag)[0].tensor_proto.string_val[0].decode() for tag in events.Tags()["tensors"]}
    assert "name: demo" in texts["recipe/text_summary"]
    assert '"kept"' in texts["report of corpus/text_summary"]


@needs("wandb")
def test_wandb_works_without_a_network(small_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    for name in ("WANDB_DIR", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    commands.train.run(short(tmp_path, small_corpus, "train.track=[wandb]"))
    found = list((tmp_path / "train" / "wandb").glob("offline-run-*/run-*.wandb"))
    assert len(found) == 2, "one run per stage"
    content = b"".join(path.read_bytes() for path in found)
    for expected in (b"eval/wer", b"train/lr/projector", b"report-of-corpus", b"demo-letters"):
        assert expected in content
    assert not (tmp_path / "train" / "tensorboard").exists()


def test_trackio_receives_the_log_and_the_reports(
    small_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trackio = pytest.importorskip("trackio")
    monkeypatch.setattr("trackio.utils.TRACKIO_DIR", tmp_path / "trackio")
    monkeypatch.setattr("trackio.sqlite_storage.TRACKIO_DIR", tmp_path / "trackio")
    commands.train.run(short(tmp_path, small_corpus, "train.track=[trackio]"))
    logged = trackio.SQLiteStorage.get_logs("demo", "demo-all")
    assert [row["train/loss"] for row in logged if "train/loss" in row] == pytest.approx(
        metrics(tmp_path / "train", "loss")[2:]
    )
    assert any("report of corpus" in row for row in logged)


def test_an_unknown_tracker_is_refused(small_corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'tensorboard', 'wandb' or 'trackio'"):
        short(tmp_path, small_corpus, "train.track=[paper]")


def test_a_failing_tracker_does_not_end_the_run(
    small_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def log(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(TensorBoard, "log", log)
    commands.train.run(short(tmp_path, small_corpus))
    stderr = capsys.readouterr().err
    assert stderr.count("warning: tensorboard failed ([Errno 28] No space left on device); the run continues") == 2


def card_of(folder: Path) -> tuple[dict, str]:  # type: ignore[type-arg]
    _, header, text = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(header), text


def test_every_checkpoint_has_a_card_with_its_origin(small_run: Path) -> None:
    for stage in ("1-letters", "2-all"):
        for folder in checkpoints.complete_checkpoints(small_run / stage):
            header, text = card_of(folder)
            assert header["language"] == "he"
            assert header["pipeline_tag"] == "automatic-speech-recognition"
            assert f"step {checkpoints.step_of(folder)} of" in text
            assert f"| WER | {percent(checkpoints.metrics_of(folder)['wer'])} |" in text
            assert "68 utterances" in text
            assert "| synthetic |" in text
            assert "niqqud strip, maqaf keep" in text
            assert "Trained on synthetic speech (68 of 68" in text
            assert "effective_batch: 8" in text


class FakeHub:
    """A Hub in a folder; the first `fail` uploads fail, and all wait for `open`."""

    def __init__(self, folder: Path, fail: int = 0) -> None:
        self.folder, self.fail, self.messages = folder, fail, []
        self.open = threading.Event()
        folder.mkdir()

    def create_repo(self, repository: str, *, private: bool, exist_ok: bool) -> None:
        assert exist_ok

    def upload_folder(self, *, repo_id: str, folder_path: Path, commit_message: str) -> None:
        assert self.open.wait(60)
        if self.fail:
            self.fail -= 1
            raise ConnectionError("the network is down")
        self.messages.append(commit_message)
        for path in Path(folder_path).iterdir():
            shutil.copy(path, self.folder / path.name)

    def list_repo_tree(self, repository: str) -> list[RepoFile]:
        """Answers like the Hub: weights are LFS files, the rest is in git."""
        found = []
        for path in self.folder.iterdir():
            data = path.read_bytes()
            lfs = {"size": len(data), "oid": hashlib.sha256(data).hexdigest(), "pointerSize": 134}
            large = {"lfs": lfs} if path.suffix == ".safetensors" else {}
            found.append(RepoFile(path=path.name, size=len(data), oid=git_hash(data), **large))
        return found


def trained_with(
    hub: FakeHub, corpus: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, after: bool = False
) -> dict:  # type: ignore[type-arg]
    monkeypatch.setattr("caspi.hub.HfApi", lambda: hub)
    real = Uploads.finish

    def finish(self: Uploads, last: Path, timeout: float = 60.0):  # type: ignore[no-untyped-def]
        hub.open.set()
        return real(self, last, timeout)

    monkeypatch.setattr(Uploads, "finish", finish)
    return commands.train.run(run_recipe(folder, corpus, "train.hub={repository: someone/model}")).summary


def test_uploads_neither_delay_training_nor_send_its_state(
    small_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training completes while the first upload hangs; the last checkpoint is uploaded in the end."""
    hub = FakeHub(tmp_path / "hub")
    summary = trained_with(hub, small_corpus, tmp_path, monkeypatch)
    assert summary["hub"] == {
        "repository": "someone/model", "checkpoint": summary["final"], "verified": True, "reason": "",
    }  # fmt: skip
    assert hub.messages == ["stage letters, step 2 of 3", "stage all, step 6 of 6"]
    sent = {path.name for path in hub.folder.iterdir()}
    assert {"model.safetensors", "config.json", "README.md", "tokenizer.json"} <= sent
    assert not sent & {"optimizer.safetensors", "scheduler.pt", "trainer_state.json", "rng_state.pth"}
    assert not (tmp_path / "train" / "uploading").exists()


def test_a_hub_that_is_down_does_not_end_the_run_and_is_reported(
    small_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = trained_with(FakeHub(tmp_path / "hub", fail=99), small_corpus, tmp_path, monkeypatch)
    assert not summary["hub"]["verified"]
    assert summary["hub"]["reason"] == "the network is down"
    assert f"to upload again: caspi publish {summary['final']} someone/model" in capsys.readouterr().err


@pytest.mark.parametrize("broken", ["model.safetensors", "config.json"])
def test_a_differing_file_of_the_same_size_is_uploaded_again(
    small_run: Path, tmp_path: Path, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All checkpoints of a run have files of the same sizes; an older one must not be taken for the last."""
    last = checkpoints.complete_checkpoints(small_run / "2-all")[-1]
    hub = FakeHub(tmp_path / "hub")
    hub.open.set()
    monkeypatch.setattr("caspi.hub.HfApi", lambda: hub)
    uploads = Uploads(HubConfig(repository="someone/model"), tmp_path)
    uploads.offer(last, "once")
    assert uploads.finish(last).verified
    there = hub.folder / broken
    there.write_bytes(b"x" * there.stat().st_size)
    with pytest.MonkeyPatch.context() as patch:  # a Hub that accepts uploads but stores nothing
        patch.setattr(hub, "upload_folder", lambda **_: None)
        found = Uploads(HubConfig(repository="someone/model"), tmp_path).finish(last)
        assert not found.verified
        assert f"{broken} differ" in found.reason
    hub.fail = 1
    found = Uploads(HubConfig(repository="someone/model"), tmp_path).finish(last)
    assert not found.verified
    assert found.reason == "the network is down"
    assert Uploads(HubConfig(repository="someone/model"), tmp_path).finish(last).verified
    assert hub.messages == ["once", f"2-all, {last.name}"]
    assert there.read_bytes() == (last / broken).read_bytes()


def test_a_tracker_that_cannot_start_gives_a_one_line_error(
    small_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(*_: object, **__: object) -> None:
        raise ValueError("no key\nread the manual")

    monkeypatch.setattr(TensorBoard, "__init__", start)
    with pytest.raises(UsageError, match=r"^train.track: tensorboard cannot start \(no key\)$"):
        commands.train.run(short(tmp_path, small_corpus))
