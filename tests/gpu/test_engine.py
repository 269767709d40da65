"""The engine's kernels against the plain operations, and its tokens against transformers' `generate`."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

from caspi.inference.engine.attention import gathered, over_spans
from caspi.inference.engine.engine import Engine
from caspi.inference.engine.generator import GeneratorOptions
from caspi.inference.engine.matrices import EightBitMatrix, joined, rounded, scaled
from caspi.inference.engine.network import Cache
from caspi.inference.engine.operations import PLAIN, Operations
from caspi.inference.engine.requests import DecodeRequest, Sampling
from caspi.inference.engine.weights import DecoderWeights
from caspi.model.batch import Item, collate
from caspi.model.config import ModelConfig
from caspi.model.eight_bit import DTYPES as EIGHT_BIT
from caspi.model.eight_bit import EightBitWeight, Format
from caspi.model.forward import label_logits
from caspi.model.loading import LoadedModel, cast, load
from caspi.model.tensors import to_device
from tests.support import generated

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")]
CUDA = torch.device("cuda")
DTYPES = [(torch.float32, 2e-6), (torch.bfloat16, 0.02)]


@pytest.fixture(scope="module")
def on_gpu() -> LoadedModel:
    return load(ModelConfig(start="tiny"), CUDA)


@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES)
@pytest.mark.parametrize(("rows", "heads", "key_heads", "width"), [(1, 16, 8, 128), (40, 16, 8, 128), (7, 4, 2, 32)])
def test_attention_over_spans_equals_the_plain_operations(
    rows: int, heads: int, key_heads: int, width: int, dtype: torch.dtype, tolerance: float
) -> None:
    torch.manual_seed(0)
    keys_values = torch.randn(rows * 700 + 5, 2, key_heads, width, device=CUDA)
    query = torch.randn(rows, heads, width, device=CUDA)
    starts = torch.arange(rows, device=CUDA) * 700 + 3
    lengths = torch.randint(1, 690, (rows,), device=CUDA)
    wanted = gathered(starts, lengths, width**-0.5)(query, keys_values)
    found = over_spans(starts, lengths, width**-0.5)(query.to(dtype), keys_values.to(dtype))
    assert float((found.float() - wanted).abs().max()) < tolerance


@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES)
@pytest.mark.parametrize("tokens", [1, 37])
def test_fused_operations_equal_the_plain_ones(
    on_gpu: LoadedModel, tokens: int, dtype: torch.dtype, tolerance: float
) -> None:
    torch.manual_seed(0)
    weights = DecoderWeights.of(on_gpu.model, dtype, 600)
    block, fused = weights.blocks[1], Operations.on(CUDA)
    hidden, change = (torch.randn(tokens, 128, device=CUDA).to(dtype) for _ in range(2))
    for given in (None, change):
        for one, other in zip(
            fused.add_norm(hidden, given, block.input_norm, 1e-6),
            PLAIN.add_norm(hidden, given, block.input_norm, 1e-6),
            strict=True,
        ):
            torch.testing.assert_close(one, other, atol=tolerance, rtol=tolerance)
    gate_up = torch.randn(tokens, 768, device=CUDA).to(dtype)
    torch.testing.assert_close(fused.gated(gate_up), PLAIN.gated(gate_up), atol=tolerance, rtol=tolerance)
    projected = torch.randn(tokens, 8 * 32, device=CUDA).to(dtype)
    positions = torch.randint(0, 600, (tokens,), device=CUDA)
    places = torch.randperm(50, device=CUDA)[:tokens]
    caches = [Cache.of(weights, 50).keys_values[0] for _ in range(2)]
    both = [
        operations.place(projected, block, weights, positions, places, cache)
        for operations, cache in zip((fused, PLAIN), caches, strict=True)
    ]
    for one, other in [*zip(*both, strict=True), tuple(caches)]:
        torch.testing.assert_close(one, other, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("form", list(EIGHT_BIT))
@pytest.mark.parametrize("shape", [(1, 64), (40, 2048), (500, 6144)])
def test_inputs_are_rounded_to_eight_bits_as_on_a_cpu(form: Format, shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    inputs = torch.randn(*shape).to(torch.bfloat16)
    inputs[0, : shape[1] // 2] = 0
    for wanted, found in zip(rounded(inputs, EIGHT_BIT[form]), rounded(inputs.to(CUDA), EIGHT_BIT[form]), strict=True):
        assert torch.equal(wanted.float(), found.float().cpu())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_whole_numbers_are_scaled_as_on_a_cpu(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    product = torch.randint(-(1 << 24), 1 << 24, (37, 1500), dtype=torch.int32)
    given = product, torch.rand(37, 1), torch.rand(1500)
    found = scaled(*(tensor.to(CUDA) for tensor in given), dtype)
    assert torch.equal(scaled(*given, dtype), found.cpu())


@pytest.mark.parametrize(("form", "rows"), [("int8", 3), ("int8", 40), ("fp8", 3), ("fp8", 40)])
def test_products_in_eight_bits_are_nearly_those_of_floats(form: Format, rows: int) -> None:
    torch.manual_seed(0)
    weight, inputs = torch.randn(1024, 512, device=CUDA), torch.randn(rows, 512, device=CUDA)
    found = joined([EightBitWeight.of(weight, form)], CUDA, torch.bfloat16)
    assert isinstance(found, EightBitMatrix)
    wanted = inputs @ weight.t()
    assert float((found(inputs.to(torch.bfloat16)).float() - wanted).norm()) < 0.05 * float(wanted.norm())


def requests() -> list[DecodeRequest]:
    """Noise that swells and fades, of 0.3 to 20 seconds; the model takes it for speech."""
    draw = np.random.default_rng(0)
    clips = []
    for seconds in (0.3, 2.0, 9.0, 20.0, 4.0, 1.0, 6.0, 12.0):
        samples = draw.standard_normal(int(16_000 * seconds)).astype(np.float32)
        clips.append(samples * 0.1 * np.abs(np.sin(np.arange(len(samples)) / 3_000)).astype(np.float32))
    languages = ("Spanish", None)
    return [
        DecodeRequest(clip, "pan" if n % 3 else "", languages[n % 2], max_tokens=80) for n, clip in enumerate(clips)
    ]


@pytest.mark.parametrize("changes", [{}, {"graphs": False}, {"rows": 3, "steps": 1}])
def test_tokens_in_fp32_equal_generate(on_gpu: LoadedModel, changes: dict[str, int]) -> None:
    options = replace(GeneratorOptions.for_device(CUDA), **changes)
    found = Engine(on_gpu, options=options).decode(requests())
    assert [list(hypothesis.tokens) for hypothesis in found] == [generated(on_gpu, one) for one in requests()]


def test_in_bf16_the_neighbours_change_nearly_nothing() -> None:
    loaded = load(ModelConfig(start="tiny"), CUDA)
    cast(loaded.model, torch.bfloat16)
    clips = requests() * 20
    together = Engine(loaded, dtype=torch.bfloat16).decode(clips)
    alone = [Engine(loaded, dtype=torch.bfloat16).decode([clip])[0] for clip in requests()]
    same = sum(one.tokens == alone[number % 8].tokens for number, one in enumerate(together))
    assert same >= 0.9 * len(clips)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-3), (torch.bfloat16, 0.2)])
def test_log_probabilities_equal_those_of_a_forward_pass(dtype: torch.dtype, tolerance: float) -> None:
    loaded = load(ModelConfig(start="tiny"), CUDA)
    cast(loaded.model, dtype)
    forced = loaded.prompt.language_prefix("Spanish")
    compared = 0
    asked = [replace(request, language="Spanish") for request in requests()]
    for request, hypothesis in zip(asked, Engine(loaded, dtype=dtype).decode(asked), strict=True):
        batch = collate([Item(request.samples, hypothesis.text, "Spanish", request.context)], loaded.prompt)
        if batch.items[0].example.target != [*forced, *hypothesis.tokens]:
            continue  # the text is tokenised otherwise than the model wrote it
        with torch.no_grad():
            scores = label_logits(loaded.model, to_device(batch, CUDA))[len(forced) :].float().log_softmax(dim=1).cpu()
        wanted = scores.gather(1, torch.tensor(hypothesis.tokens)[:, None])[:, 0]
        assert torch.tensor(hypothesis.log_probabilities) == pytest.approx(wanted, abs=tolerance)
        compared += 1
    assert compared


def test_sampling_is_the_same_beside_others(on_gpu: LoadedModel) -> None:
    sampled = [replace(request, sampling=Sampling(seed=n, top_p=0.9)) for n, request in enumerate(requests())]
    together = Engine(on_gpu).decode(sampled)
    assert [Engine(on_gpu).decode([request])[0].tokens for request in sampled] == [one.tokens for one in together]


def test_more_requests_than_rows_and_memory_are_all_answered(on_gpu: LoadedModel) -> None:
    options = replace(GeneratorOptions.for_device(CUDA), rows=16, cache_bytes=4 << 20)
    clips = requests() * 30
    found = Engine(on_gpu, options=options).decode(clips)
    alone = Engine(on_gpu).decode(requests())
    assert [one.tokens for one in found] == [alone[number % 8].tokens for number in range(len(clips))]


def test_other_threads_may_use_the_gpu_while_the_engine_captures_its_steps(on_gpu: LoadedModel) -> None:
    ended, failures = threading.Event(), []

    def use() -> None:
        try:
            for number in range(1_000_000):
                if ended.is_set():
                    return
                # Sizes that no pool has yet, so that memory is taken from the system.
                torch.ones(1 << 20 | number << 8).pin_memory().to(CUDA, non_blocking=True)
                torch.cuda.current_stream().synchronize()
        except Exception as error:
            failures.append(error)

    other = threading.Thread(target=use)
    other.start()
    try:
        for _ in range(5):
            engine = Engine(on_gpu, dtype=torch.bfloat16)
            clips = [np.random.default_rng(n).standard_normal(16_000).astype(np.float32) for n in range(40)]
            assert len(engine.decode([DecodeRequest(clip, max_tokens=1 + n) for n, clip in enumerate(clips)])) == 40
    finally:
        ended.set()
        other.join()
    assert not failures
