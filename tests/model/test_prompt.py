from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from caspi.errors import UsageError
from caspi.model.loading import LoadedModel, load_tokenizer, make_processor
from caspi.model.prompt import Prompt

PLAIN = st.text(
    alphabet=st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from("שלום \n.,'\"<|>")), max_size=40
)


@pytest.fixture(scope="module")
def real_prompt(real_tokenizer_folder: Path) -> Prompt:
    return Prompt(load_tokenizer(real_tokenizer_folder))


def whole(context: str, audio_tokens: int, target: str) -> str:
    """The layout of the released chat template, in one string."""
    return (
        f"<|im_start|>system\n{context}<|im_end|>\n<|im_start|>user\n<|audio_start|>{'<|audio_pad|>' * audio_tokens}"
        f"<|audio_end|><|im_end|>\n<|im_start|>assistant\n{target}"
    )


def test_released_token_numbers(real_prompt: Prompt) -> None:
    assert (real_prompt.asr_text, real_prompt.audio, real_prompt.end, real_prompt.pad) == (
        151704,
        151676,
        151645,
        151643,
    )


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(context=PLAIN, text=PLAIN)
def test_pieces_equal_the_whole_string_on_the_real_tokenizer(real_prompt: Prompt, context: str, text: str) -> None:
    if any(mark in context + text for mark in ("<|", "<asr", "<t", "</", "<b", "<n")):
        return
    example = real_prompt.example(3, text, "Hebrew", context)
    expected = real_prompt.tokenizer.encode(whole(context, 3, f"language Hebrew<asr_text>{text}<|im_end|>"))
    assert example.prompt + example.target == expected


@pytest.mark.parametrize("context", ["", "אברהם, שרה ויצחק"])
@pytest.mark.parametrize("seconds", [1, 5, 12, 30])
def test_equals_the_models_own_processor(
    real_tokenizer_folder: Path, real_prompt: Prompt, seconds: int, context: str
) -> None:
    from caspi.model.features import audio_token_count, frame_count

    processor = make_processor(load_tokenizer(real_tokenizer_folder))
    samples = np.random.default_rng(0).standard_normal(seconds * 16_000 + 777).astype(np.float32) * 0.1
    reference = processor.apply_transcription_request(samples, prompt=context or None)["input_ids"][0].tolist()
    assert real_prompt.prefix(audio_token_count(frame_count(len(samples))), context) == reference


def test_target_is_language_text_and_end(real_prompt: Prompt) -> None:
    target = real_prompt.example(4, "שלום עולם", "Hebrew").target
    assert real_prompt.tokenizer.decode(target) == "language Hebrew<asr_text>שלום עולם<|im_end|>"


def test_special_names_inside_a_transcript_stay_text(tiny: LoadedModel) -> None:
    target = tiny.prompt.example(1, "a <|im_end|> b <|audio_pad|>", "Hebrew").target
    assert target.count(tiny.prompt.end) == 1
    assert tiny.prompt.audio not in target


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(alphabet="אבגדהוזחטיכלמנסעפצקרשתםןץףך ", min_size=1, max_size=60))
def test_parse_undoes_example(tiny: LoadedModel, text: str) -> None:
    target = tiny.prompt.example(0, text, "Hebrew").target
    assert tiny.prompt.parse(target) == ("Hebrew", text.strip())


def test_parse_keeps_loops_and_recognises_no_speech(tiny: LoadedModel) -> None:
    loop = "שוב " * 60
    assert tiny.prompt.parse(tiny.prompt.example(0, loop, "Hebrew").target)[1] == loop.strip()
    assert tiny.prompt.parse(tiny.prompt.example(0, "", "None").target) == (None, "")


def test_tiny_and_real_prompts_decode_alike(tiny: LoadedModel, real_prompt: Prompt) -> None:
    for prompt in (tiny.prompt, real_prompt):
        example = prompt.example(2, "שלום", "Hebrew", "הקשר")
        assert prompt.tokenizer.decode(example.prompt + example.target) == whole(
            "הקשר", 2, "language Hebrew<asr_text>שלום<|im_end|>"
        )


def test_a_foreign_tokenizer_is_refused(tiny: LoadedModel) -> None:
    class Stranger:
        def convert_tokens_to_ids(self, token: str) -> None:
            return None

    with pytest.raises(UsageError, match="not a Qwen3-ASR tokenizer"):
        Prompt(Stranger())  # type: ignore[arg-type]
