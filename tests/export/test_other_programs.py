"""What we export, read by the programs it is for, each in an environment of its own (make test-slow makes them)."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import soundfile

from caspi import audio, commands
from caspi.corpus.espeak import Voice, speak
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
# Its end token is a number in its code, that of the released vocabulary; tiny's has another.
end = json.load(open(sys.argv[1] + "/generation_config.json"))["eos_token_id"]
model.model.generate = functools.partial(model.model.generate, eos_token_id=end)
heard = [model.transcribe(audio=soundfile.read(file, dtype="float32"))[0].text for file in sys.argv[2:]]
print("HEARD" + json.dumps(heard))
"""


@pytest.mark.slow
def test_qwen_asr_hears_what_we_hear(tmp_path: Path) -> None:
    """The real package, on clips of one to three seconds: the same text, word for word."""
    python = ROOT / ".venv" / "qwen-asr" / "bin" / "python"
    if not python.exists():
        pytest.skip("no environment of qwen-asr: make test-slow makes one")
    files = []
    for number, sentence in enumerate(SENTENCES):
        spoken = speak(sentence, "es", Voice("m1", 150 + 5 * number))
        files.append(tmp_path / f"{number}.wav")
        soundfile.write(files[-1], audio.resample(spoken.samples, spoken.sample_rate), 16_000)
    commands.export("tiny", "qwen-asr", tmp_path / "export")
    done = subprocess.run(
        [python, "-c", QWEN_ASR, str(tmp_path / "export"), *map(str, files)],
        capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2_000:]
    theirs = json.loads(done.stdout.split("HEARD")[1])
    ours = [found["text"] for found in commands.transcribe("tiny", files, "txt", None, "", None).summary["files"]]
    assert theirs == ours
