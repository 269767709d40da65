"""The engine against transformers' `generate`, one clip at a time."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from caspi import audio
from caspi.errors import CaspiError, UsageError
from caspi.inference.engine.engine import Engine
from caspi.inference.engine.generator import Generator, GeneratorOptions
from caspi.inference.engine.network import Cache, Network
from caspi.inference.engine.requests import DecodeRequest, Hypothesis, Sampling
from caspi.inference.loops import loops
from caspi.model.batch import Item, collate
from caspi.model.config import ModelConfig
from caspi.model.forward import label_logits
from caspi.model.loading import LoadedModel, cast, load
from tests.support import generated, voice

WORDS = "la casa grande el perro come pan muchas gracias una ciudad muy antigua el niño bebe leche".split()


@pytest.fixture(scope="module")
def requests() -> list[DecodeRequest]:
    """Clips of 1 to 12 seconds, some with a context, some without a language."""
    choose = random.Random(0)
    clips = [voice(" ".join(choose.choices(WORDS, k=count)), count) for count in (1, 2, 3, 5, 8, 13, 21, 30, 4, 6)]
    return [
        DecodeRequest(clip, "pan, leche" if number % 3 == 0 else "", "Spanish" if number % 2 else None)
        for number, clip in enumerate(clips)
    ]


@pytest.fixture(scope="module")
def expected(tiny: LoadedModel, requests: list[DecodeRequest]) -> list[list[int]]:
    return [generated(tiny, request) for request in requests]


def options(**changes: Any) -> GeneratorOptions:
    return replace(GeneratorOptions.for_device(torch.device("cpu")), **changes)


@pytest.mark.parametrize("changes", [{}, {"rows": 1}, {"rows": 3, "steps": 5}, {"prompt_tokens": 1}])
def test_tokens_equal_generate_for_any_number_of_rows_and_order(
    tiny: LoadedModel, requests: list[DecodeRequest], expected: list[list[int]], changes: dict[str, int]
) -> None:
    engine = Engine(tiny, options=options(**changes))
    order = random.Random(1).sample(range(len(requests)), len(requests))
    found = engine.decode([requests[number] for number in order])
    assert [list(hypothesis.tokens) for hypothesis in found] == [expected[number] for number in order]


def test_a_small_cache_makes_requests_wait_and_changes_nothing(
    tiny: LoadedModel, requests: list[DecodeRequest], expected: list[list[int]]
) -> None:
    engine = Engine(tiny, options=options(cache_bytes=1))  # space for the largest request only
    assert [list(hypothesis.tokens) for hypothesis in engine.decode(requests)] == expected


def test_log_probabilities_equal_those_of_a_forward_pass(tiny: LoadedModel, requests: list[DecodeRequest]) -> None:
    for request, hypothesis in zip(requests[1::2], Engine(tiny).decode(requests[1::2]), strict=True):
        item = Item(request.samples, "", "Spanish", request.context)
        example = collate([item], tiny.prompt).items[0].example
        forced = tiny.prompt.language_prefix("Spanish")
        batch = collate([replace(item, text=hypothesis.text)], tiny.prompt)
        assert example.target[:-1] == forced
        if batch.items[0].example.target != [*forced, *hypothesis.tokens]:
            continue  # the text is tokenised otherwise than the model wrote it
        logits = label_logits(tiny.model, batch)[len(forced) :]
        wanted = logits.log_softmax(dim=1).gather(1, torch.tensor(hypothesis.tokens)[:, None])[:, 0]
        assert torch.tensor(hypothesis.log_probabilities) == pytest.approx(wanted.detach(), abs=1e-4)


def test_200_requests_with_cancellations_lose_nothing(tiny: LoadedModel) -> None:
    choose = random.Random(2)
    clips = [voice(" ".join(choose.choices(WORDS, k=choose.randint(1, 6))), number) for number in range(40)]
    limits = [choose.choice([1, 3, 10, 40]) for _ in range(200)]
    engine = Engine(tiny, options=options(rows=7, cache_bytes=1 << 20))
    tickets = [engine.submit(DecodeRequest(clips[n % 40], "", "Spanish", max_tokens=limits[n])) for n in range(200)]
    cancelled = set(choose.sample(tickets, 30))
    done: dict[int, Hypothesis] = {}
    for round_ in itertools.count():
        if not engine.pending:
            break
        for ticket in list(cancelled)[round_ : round_ + 1]:
            if ticket not in done:
                engine.cancel(ticket)
            else:
                cancelled.discard(ticket)
        for ticket, hypothesis in engine.poll():
            assert ticket not in done
            done[ticket] = hypothesis
    assert set(tickets) - set(done) <= cancelled
    reference = Engine(tiny)
    alone = {n: reference.decode([DecodeRequest(clips[n], "", "Spanish", max_tokens=40)])[0] for n in range(40)}
    for number, ticket in enumerate(tickets):
        if ticket in done:
            assert done[ticket].tokens == alone[number % 40].tokens[: limits[number]]


def test_a_cancelled_request_is_never_returned(tiny: LoadedModel, requests: list[DecodeRequest]) -> None:
    engine = Engine(tiny)
    tickets = [engine.submit(request) for request in requests]
    engine.poll()  # all have begun
    engine.cancel(tickets[2])
    found = {}
    while engine.pending:
        found |= dict(engine.poll())
    assert set(found) == set(tickets) - {tickets[2]}


def test_running_out_of_memory_makes_the_cache_smaller_and_loses_nothing(
    tiny: LoadedModel, requests: list[DecodeRequest], expected: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    step_pass, times = Network.step_pass, itertools.count()

    def failing(self: Network, *given: Any) -> torch.Tensor:
        if next(times) in (3, 9):
            raise torch.OutOfMemoryError
        return step_pass(self, *given)

    monkeypatch.setattr(Network, "step_pass", failing)
    sizes = []
    allocate = Generator._allocate
    monkeypatch.setattr(Generator, "_allocate", lambda self, *size: sizes.append(size[0]) or allocate(self, *size))
    assert [list(hypothesis.tokens) for hypothesis in Engine(tiny).decode(requests)] == expected
    assert sizes == [sizes[0], sizes[0] // 2, sizes[0] // 4]


def test_sampling_depends_on_the_seed_and_not_on_the_neighbours(
    tiny: LoadedModel, requests: list[DecodeRequest]
) -> None:
    sampled = [replace(request, sampling=Sampling(seed=number)) for number, request in enumerate(requests)]
    together = Engine(tiny).decode(sampled)
    alone = [Engine(tiny).decode([request])[0] for request in sampled[:4]]
    assert [one.tokens for one in together[:4]] == [one.tokens for one in alone]
    other = replace(sampled[5], sampling=Sampling(seed=99))
    assert Engine(tiny).decode([other])[0].tokens != together[5].tokens


@pytest.mark.parametrize("sampling", [Sampling(temperature=1e-4), Sampling(top_p=1e-6)])
def test_cold_or_narrow_sampling_is_greedy(
    tiny: LoadedModel, requests: list[DecodeRequest], expected: list[list[int]], sampling: Sampling
) -> None:
    found = Engine(tiny).decode([replace(request, sampling=sampling) for request in requests])
    assert [list(hypothesis.tokens) for hypothesis in found] == expected


def test_top_p_leaves_only_the_most_likely_tokens(tiny: LoadedModel, requests: list[DecodeRequest]) -> None:
    """Of the first token: 300 draws stay within the smallest set whose probability reaches 0.5."""
    request = replace(requests[5], max_tokens=1)
    batch = collate([Item(request.samples, "", "Spanish", request.context)], tiny.prompt)
    likely = label_logits(tiny.model, batch)[-1].softmax(dim=0)
    ordered = likely.sort(descending=True)
    allowed = set(ordered.indices[: int((ordered.values.cumsum(0) < 0.5).sum()) + 1].tolist())
    sampled = [replace(request, sampling=Sampling(top_p=0.5, seed=seed)) for seed in range(300)]
    found = {hypothesis.tokens[0] for hypothesis in Engine(tiny).decode(sampled)}
    assert found <= allowed


def test_limits_and_a_forced_prefix(tiny: LoadedModel, requests: list[DecodeRequest]) -> None:
    request = requests[5]
    [plain] = Engine(tiny).decode([request])
    short, long, prefixed = Engine(tiny).decode(
        [
            replace(request, max_tokens=3),
            replace(request, min_tokens=len(plain.tokens) + 5),
            replace(request, prefix=plain.text[:10]),
        ]
    )
    assert short.truncated
    assert short.tokens == plain.tokens[:3]
    assert len(long.tokens) >= len(plain.tokens) + 5
    assert long.tokens[: len(plain.tokens) - 1] == plain.tokens[:-1]
    assert prefixed.text.startswith(plain.text[:10])


def test_giving_up_drops_what_is_not_done(tiny: LoadedModel, requests: list[DecodeRequest]) -> None:
    asked = itertools.chain([False] * 4, itertools.repeat(True))
    engine = Engine(tiny)
    assert len(list(engine.decode_each(requests, should_stop=lambda: next(asked)))) < len(requests)
    assert not engine.pending
    assert len(list(engine.decode_each(requests))) == len(requests), "the engine can be used again"


def test_the_base_model_hears_noise_as_it_does_alone(tiny: LoadedModel) -> None:
    """Very short and very quiet clips among others."""
    draw = np.random.default_rng(0)
    clips = [draw.standard_normal(int(16_000 * s)).astype(np.float32) * 0.05 for s in (0.2, 9.0, 0.5, 17.0, 1.0)]
    wanted = [DecodeRequest(clip, max_tokens=30) for clip in clips]
    assert [list(h.tokens) for h in Engine(tiny).decode(wanted)] == [generated(tiny, request) for request in wanted]


@pytest.mark.parametrize("rows", [64, 9])
def test_a_beam_search_equals_that_of_generate(tiny: LoadedModel, requests: list[DecodeRequest], rows: int) -> None:
    """Of all beams, whatever is searched beside them."""
    searched = [replace(request, beams=4, max_tokens=60) for request in requests]
    found = Engine(tiny, options=options(rows=rows)).decode(searched)
    for request, best in zip(searched, found, strict=True):
        wanted = generated(tiny, request, num_beams=4, num_return_sequences=4)
        n_best = [list(one.tokens) for one in (best, *best.others)]
        assert n_best == wanted[: len(n_best)]
        assert sorted((one.score for one in (best, *best.others)), reverse=True) == [
            one.score for one in (best, *best.others)
        ]
        assert best.score == pytest.approx(sum(best.log_probabilities) / len(best.tokens), abs=1e-4)


def test_a_search_without_loops_takes_the_most_likely_tokens(
    tiny: LoadedModel, requests: list[DecodeRequest], expected: list[list[int]]
) -> None:
    found = Engine(tiny).decode([replace(request, no_loops=True) for request in requests])
    assert [list(one.tokens) for one in found] == expected


def test_no_token_may_make_a_text_repeat_itself(tiny: LoadedModel) -> None:
    """Without the end of turn the model goes round in circles."""
    noise = (0.1 * np.random.default_rng(0).standard_normal(32_000)).astype(np.float32)
    request = DecodeRequest(noise, language="Spanish", max_tokens=120, min_tokens=120)
    free, guarded = Engine(tiny).decode([request, replace(request, no_loops=True)])
    assert loops(free.text)
    assert not loops(guarded.text)
    assert len(guarded.tokens) == 120


@pytest.mark.parametrize("length_penalty", [-1.0, 0.0, 2.0])
def test_length_penalties_are_those_of_generate(
    tiny: LoadedModel, requests: list[DecodeRequest], length_penalty: float
) -> None:
    searched = [replace(request, beams=3, max_tokens=40, length_penalty=length_penalty) for request in requests[:6]]
    for request, best in zip(searched, Engine(tiny).decode(searched), strict=True):
        wanted = generated(tiny, request, num_beams=3, num_return_sequences=3, length_penalty=length_penalty)
        n_best = [list(one.tokens) for one in (best, *best.others)]
        assert n_best == wanted[: len(n_best)]


def test_the_probability_of_the_language_is_that_of_its_tokens(
    tiny: LoadedModel, requests: list[DecodeRequest]
) -> None:
    """By a separate forward pass."""
    [found] = Engine(tiny).decode([replace(requests[0], language=None)])
    assert found.language_probability is not None
    item = Item(requests[0].samples, "", found.language or "None", requests[0].context)
    batch = collate([item], tiny.prompt)
    named = len(tiny.prompt.language_prefix(item.language))
    with torch.no_grad():
        scores = label_logits(tiny.model, batch).log_softmax(dim=1)
    expected = scores[range(named), batch.labels[:named]].sum().exp()
    assert found.language_probability == pytest.approx(float(expected), rel=1e-3)


def fails(tiny: LoadedModel, requests: list[DecodeRequest], kind: str, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """An engine after a failure of some kind."""
    engine = Engine(tiny, options=options(rows=8))
    if kind == "context too long":
        with pytest.raises(UsageError, match="shorten the context"):
            engine.decode([requests[0], replace(requests[1], context="שלום " * 6_000)])
    elif kind == "too many beams":
        with pytest.raises(UsageError, match="at most 8"):
            engine.decode([requests[0], replace(requests[1], beams=9)])
    elif kind == "source":
        with pytest.raises(OSError, match="disk"):
            list(engine.decode_each(_broken_source(requests)))
    elif kind == "left":
        each = engine.decode_each(requests)
        next(each)
        each.close()
    elif kind == "encoder memory":
        with monkeypatch.context() as patch:
            patch.setattr(Engine, "_encoded", _out_of_memory)
            with pytest.raises(CaspiError, match="does not hold one clip"):
                engine.decode(requests[:1])
    elif kind == "bug":
        with monkeypatch.context() as patch:
            patch.setattr(Network, "step_pass", _bug)
            with pytest.raises(RuntimeError, match="bug"):
                engine.decode(requests)
    return engine


def _broken_source(requests: list[DecodeRequest]) -> Iterator[DecodeRequest]:
    yield from requests[:3]
    raise OSError("disk")


def _out_of_memory(*_: Any) -> None:
    raise torch.OutOfMemoryError


def _bug(*_: Any) -> None:
    raise RuntimeError("bug")


@pytest.mark.parametrize("kind", ["context too long", "too many beams", "source", "left", "encoder memory", "bug"])
def test_an_engine_goes_on_after_a_failure(
    kind: str, tiny: LoadedModel, requests: list[DecodeRequest], expected: list[list[int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    engine = fails(tiny, requests, kind, monkeypatch)
    assert [list(one.tokens) for one in engine.decode(requests)] == expected
    assert engine.pending == 0


def test_searches_that_memory_does_not_hold_begin_again_with_fewer_at_once(
    tiny: LoadedModel, requests: list[DecodeRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    searched = [replace(request, beams=4, max_tokens=30) for request in requests[:6]]
    expected = Engine(tiny).decode(searched)
    real, calls = Network.step_pass, itertools.count()

    def fails_once(*given: Any) -> torch.Tensor:
        if next(calls) == 3:
            raise torch.OutOfMemoryError
        return real(*given)

    monkeypatch.setattr(Network, "step_pass", fails_once)
    assert [one.tokens for one in Engine(tiny).decode(searched)] == [one.tokens for one in expected]


def test_a_search_that_memory_never_holds_is_an_error(
    tiny: LoadedModel, requests: list[DecodeRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Network, "step_pass", _out_of_memory)
    with pytest.raises(CaspiError, match="does not hold a search with 4 beams: use fewer"):
        Engine(tiny).decode([replace(requests[0], beams=4)])


def test_a_text_is_limited_by_the_longest_sequence(tiny: LoadedModel, requests: list[DecodeRequest]) -> None:
    """Trap: a context that left room for a part of the text made generation run over the end of the position table."""
    word = "שלום "
    tokens = len(tiny.prompt.text_tokens(word * 100)) / 100
    context = word * int((4_096 - 200) / tokens)
    [found] = Engine(tiny).decode([replace(requests[0], context=context, max_tokens=1_000, min_tokens=1_000)])
    assert found.truncated
    assert 32 <= len(found.tokens) < 1_000


@pytest.mark.parametrize(
    "change",
    [{"max_tokens": 0}, {"beams": 0}, {"min_tokens": -1}, {"sampling": Sampling(top_p=0.0)},
     {"samples": np.full(16_000, np.nan, np.float32)}],
)  # fmt: skip
def test_impossible_requests_are_refused(requests: list[DecodeRequest], change: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        replace(requests[0], **change)


def test_searches_and_other_requests_run_side_by_side(
    tiny: LoadedModel, requests: list[DecodeRequest], expected: list[list[int]]
) -> None:
    mixed = [replace(request, beams=3) if number % 2 else request for number, request in enumerate(requests)]
    found = Engine(tiny).decode(mixed)
    assert [list(one.tokens) for one in found[::2]] == expected[::2]
    [alone] = Engine(tiny).decode([mixed[1]])
    assert [one.tokens for one in (found[1], *found[1].others)] == [one.tokens for one in (alone, *alone.others)]


def test_a_cache_that_memory_does_not_hold_is_made_smaller(
    tiny: LoadedModel, requests: list[DecodeRequest], expected: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    make = Cache.of

    def limited(weights: Any, positions: int, most: int) -> Cache:
        if positions > most:
            raise torch.OutOfMemoryError
        return make(weights, positions)

    monkeypatch.setattr(Cache, "of", lambda weights, positions: limited(weights, positions, 3_000))
    assert [list(hypothesis.tokens) for hypothesis in Engine(tiny).decode(requests)] == expected
    monkeypatch.setattr(Cache, "of", lambda weights, positions: limited(weights, positions, 50))
    with pytest.raises(torch.OutOfMemoryError):
        Engine(tiny).decode(requests)


def cuts(folder: Path, count: int) -> list[DecodeRequest]:
    """Cuts of 1 to 12 seconds out of real recordings, every second one without a language."""
    files = sorted(path for path in folder.rglob("*") if path.suffix in (".mp3", ".wav", ".flac", ".opus", ".m4a"))
    draw = np.random.default_rng(0)
    made = []
    for number in range(count):
        samples = audio.decode(files[draw.integers(len(files))])
        length = int(draw.uniform(1, 12) * 16_000)
        first = int(draw.integers(0, max(1, len(samples) - length)))
        made.append(
            DecodeRequest(samples[first : first + length], "", "Hebrew" if number % 2 else None, max_tokens=120)
        )
    return made


@pytest.mark.slow
def test_a_hundred_real_recordings_equal_generate_and_fifty_its_beams(
    tiny: LoadedModel, real_speech_folder: Path
) -> None:
    clips = cuts(real_speech_folder, 100)
    found = Engine(tiny).decode(clips)
    assert [list(hypothesis.tokens) for hypothesis in found] == [generated(tiny, clip) for clip in clips]
    searched = [replace(clip, beams=4, max_tokens=60) for clip in clips[:50]]
    for clip, best in zip(searched, Engine(tiny).decode(searched), strict=True):
        wanted = generated(tiny, clip, num_beams=4, num_return_sequences=4)
        assert [list(one.tokens) for one in (best, *best.others)] == wanted


def test_beam_searches_that_do_not_fit_together_wait(
    tiny: LoadedModel, requests: list[DecodeRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cache holds two or three of the ten at a time; once a new one replaced it under those that had begun."""
    searched = [replace(request, beams=4, max_tokens=60) for request in requests]
    wanted = [hypothesis.tokens for hypothesis in Engine(tiny).decode(searched)]
    monkeypatch.setattr("caspi.inference.engine.engine._SEARCH_POSITIONS", 1_500)
    assert [hypothesis.tokens for hypothesis in Engine(tiny).decode(searched)] == wanted


def test_weights_in_training_have_two_dtypes() -> None:
    """Frozen weights are in 16 bits and trained ones in 32, as in a stage that trains upper encoder layers only."""
    loaded = load(ModelConfig(start="tiny"))
    cast(loaded.model, torch.bfloat16)
    request = DecodeRequest(voice("la casa grande"), language="Spanish", max_tokens=8, min_tokens=8)
    [frozen] = Engine(loaded, dtype=torch.bfloat16).decode([request])
    loaded.model.model.audio_tower.layers[-1].float()
    [trained] = Engine(loaded, dtype=torch.bfloat16).decode([request])
    assert trained.log_probabilities[:3] == pytest.approx(frozen.log_probabilities[:3], abs=0.1)
