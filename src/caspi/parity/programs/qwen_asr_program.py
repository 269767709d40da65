"""Runs in the environment of qwen-asr, without caspi: transcribes windows with the package's own class.

qwen_asr_program.py MODEL TASK: TASK is a JSON file with `device`, `dtype` and, for each window, `file`, `context` and
`limit`; the texts are written as JSON to TASK.texts. MODEL is in the original layout.
"""

import functools
import importlib.metadata
import json
import sys

import soundfile
import torch
from qwen_asr import Qwen3ASRModel  # type: ignore[import-not-found]

model_folder, task_file = sys.argv[1:]
with open(task_file, encoding="utf-8") as file:
    task = json.load(file)
model = Qwen3ASRModel.from_pretrained(model_folder, dtype=getattr(torch, task["dtype"]), device_map=task["device"])
# The package has the id of the end token of the released vocabulary in its code; another vocabulary has another id.
with open(f"{model_folder}/generation_config.json", encoding="utf-8") as file:
    end = json.load(file)["eos_token_id"]
model.model.generate = functools.partial(model.model.generate, eos_token_id=end)
texts = []
for window in task["windows"]:
    model.max_new_tokens = window["limit"]
    heard = soundfile.read(window["file"], dtype="float32")
    texts.append(model.transcribe(audio=heard, context=window["context"])[0].text)
with open(f"{task_file}.texts", "w", encoding="utf-8") as file:
    json.dump({"texts": texts, "version": importlib.metadata.version("qwen-asr")}, file)
