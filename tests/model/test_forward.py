"""Packed forward passes equal those of transformers, clip by clip."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from caspi.model.activation_checkpointing import checkpoint_activations
from caspi.model.attention import packed_attention
from caspi.model.batch import AudioBatch, Item, collate
from caspi.model.config import ModelConfig
from caspi.model.features import pad_clips
from caspi.model.forward import encode, label_logits
from caspi.model.loading import LoadedModel, load
from tests.support import gradients, items


@pytest.fixture(scope="module")
def mixed() -> list[Item]:
    return items(1.0, 5.03, 12.3, 30.0)


def native_logits(loaded: LoadedModel, item: Item) -> torch.Tensor:
    """The label logits of one utterance from the model's own forward and processor, looping over windows."""
    reference = load(ModelConfig(start="tiny")).model.eval()
    reference.config.audio_config._attn_implementation = "sdpa"
    reference.config.text_config._attn_implementation = "sdpa"
    messages = [
        {"role": "system", "content": item.context},
        {"role": "user", "content": [{"type": "audio", "audio": ""}]},
        {"role": "assistant", "content": f"language {item.language}<asr_text>{item.text}"},
    ]
    text = loaded.processor.apply_chat_template(messages, tokenize=False).removesuffix("\n")
    inputs = loaded.processor(text=[text], audio=[item.samples])
    with torch.no_grad():
        logits = reference(**inputs).logits[0]
    target = len(loaded.prompt.example(0, item.text, item.language).target)
    return logits[-target - 1 : -1]


def test_packed_batch_equals_the_models_own_forward_one_at_a_time(tiny: LoadedModel, mixed: list[Item]) -> None:
    with torch.no_grad():
        packed = label_logits(tiny.model.eval(), collate(mixed, tiny.prompt))
    native = torch.cat([native_logits(tiny, item) for item in mixed])
    assert torch.allclose(packed, native, atol=2e-4), (packed - native).abs().max()


def test_the_loss_covers_exactly_target_and_end(tiny: LoadedModel, mixed: list[Item]) -> None:
    """Trap: with left padding half of the loss tokens were <|audio_pad|>."""
    batch = collate(mixed, tiny.prompt)
    assert batch.sequences.input_ids[batch.sequences.label_positions + 1].tolist() == batch.labels.tolist()
    decoded = tiny.prompt.tokenizer.decode(batch.labels.tolist())
    assert decoded == "".join(f"language Hebrew<asr_text>{item.text}<|im_end|>" for item in mixed)
    assert (batch.sequences.input_ids[batch.sequences.audio_positions] == tiny.prompt.audio).all()
    assert (
        len(batch.sequences.audio_positions)
        == int((batch.sequences.input_ids == tiny.prompt.audio).sum())
        == sum(batch.audio.tokens)
    )


@pytest.mark.parametrize("sizes", [(2, 2, 2, 2), (1,) * 8, (5, 3)])
def test_micro_batches_do_not_change_the_gradient(fresh_tiny: LoadedModel, sizes: tuple[int, ...]) -> None:
    clips = items(1.0, 2.5, 0.7, 4.2, 9.1, 3.3, 1.9, 6.0)
    loss, expected = gradients(fresh_tiny, [clips])
    cuts = np.cumsum((0, *sizes))
    again, found = gradients(fresh_tiny, [clips[a:b] for a, b in itertools.pairwise(cuts)])
    assert again == pytest.approx(loss, rel=1e-6)
    difference = sum(torch.sum((found[name] - g).double() ** 2) for name, g in expected.items())
    size = sum(torch.sum(g.double() ** 2) for g in expected.values())
    assert float((difference / size).sqrt()) <= 1e-5


def test_micro_batches_do_not_change_any_tensors_gradient_in_float64(fresh_tiny: LoadedModel) -> None:
    """The difference in fp32 is only rounding: in float64 every tensor agrees."""
    fresh_tiny.model.double()
    clips = items(1.0, 2.5, 0.7, 4.2, 9.1, 3.3)
    _, expected = gradients(fresh_tiny, [clips])
    _, found = gradients(fresh_tiny, [clips[:1], clips[1:4], clips[4:]])
    for name, gradient in expected.items():
        assert torch.allclose(found[name], gradient, rtol=1e-8, atol=1e-12), name


@pytest.mark.parametrize(("every", "twice"), [(1, 8), (2, 4), (3, 4), (0, 0)])
def test_activation_checkpointing_gives_the_same_gradient(fresh_tiny: LoadedModel, every: int, twice: int) -> None:
    """tiny has four blocks each in encoder and decoder."""
    clips = items(1.0, 2.5, 4.2)
    fresh_tiny.model.train()
    _, expected = gradients(fresh_tiny, [clips])
    checkpoint_activations(fresh_tiny.model, 1)
    checkpoint_activations(fresh_tiny.model, every)
    calls = []
    for stack in (fresh_tiny.model.model.audio_tower.layers, fresh_tiny.model.model.language_model.layers):
        for layer in stack:
            # Something inside a block: a block's own hooks are not called again.
            layer.self_attn.register_forward_pre_hook(lambda *_: calls.append(1))
    _, found = gradients(fresh_tiny, [clips])
    assert all(torch.equal(found[name], gradient) for name, gradient in expected.items())
    assert len(calls) == 8 + twice


@settings(max_examples=30)
@given(
    st.integers(1, 5),
    st.one_of(st.integers(0, 320), st.integers(0, 15_999)),  # rest: within two frames after a full second, or any
    st.lists(st.floats(0.3, 1.0), min_size=1, max_size=3),
)
def test_every_clip_of_a_batch_is_encoded_as_if_alone(
    tiny: LoadedModel, seconds: int, rest: int, shares: list[float]
) -> None:
    """A bug we had: a longest clip of 3.002 s gave one second more of log-mel than the encoder's grid, and every clip
    but the first was shifted."""
    longest = seconds * 16_000 + rest
    draw = np.random.default_rng(seconds * rest)
    clips = [
        draw.standard_normal(length).astype(np.float32) * 0.1
        for length in [longest] + [int(longest * share) for share in shares]
    ]
    with torch.inference_mode():
        batch = AudioBatch.of(*pad_clips(clips))
        together = torch.split(encode(tiny.model, batch), batch.tokens)
        for clip, found in zip(clips, together, strict=True):
            alone = encode(tiny.model, AudioBatch.of(*pad_clips([clip])))
            assert torch.allclose(found, alone, atol=1e-4)


@settings(max_examples=20)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=5), st.booleans())
def test_packed_attention_equals_attention_within_each_sequence(lengths: list[int], causal: bool) -> None:
    heads, key_heads, width = 4, 2, 8
    torch.manual_seed(0)
    q = torch.randn(1, heads, sum(lengths), width)
    k, v = (torch.randn(1, key_heads, sum(lengths), width) for _ in range(2))
    bounds = torch.tensor(np.cumsum([0, *lengths]), dtype=torch.int32)

    class Module(torch.nn.Module):
        is_causal = causal

    found, _ = packed_attention(Module(), q, k, v, None, scaling=0.3, cu_seq_lens_q=bounds, max_length_q=max(lengths))
    for low, high in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        for head in range(heads):
            scores = q[0, head, low:high] @ k[0, head // 2, low:high].T * 0.3
            if causal:
                scores = scores.masked_fill(torch.ones_like(scores).triu(1).bool(), -torch.inf)
            expected = scores.softmax(-1) @ v[0, head // 2, low:high]
            assert torch.allclose(found[0, low:high, head], expected, atol=1e-5)
