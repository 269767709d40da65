"""Decodes clips: the encoder runs ahead over several clips packed together, the generator continues their prompts."""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from caspi.audio import Seconds
from caspi.errors import CaspiError, UsageError
from caspi.inference.engine.beam_search import BeamSearch
from caspi.inference.engine.generator import Generator, GeneratorOptions
from caspi.inference.engine.network import Cache, Network
from caspi.inference.engine.packing import Continuation, PromptJob
from caspi.inference.engine.requests import TOKENS_AT_LEAST, DecodeRequest, Hypothesis
from caspi.inference.engine.streaming import results_of
from caspi.inference.engine.weights import DecoderWeights
from caspi.inference.engine.words import recognised_words
from caspi.model.batch import AudioBatch
from caspi.model.features import audio_token_count, frame_count, pad_clips
from caspi.model.forward import encode, evaluation_mode
from caspi.model.loading import LoadedModel
from caspi.model.tensors import each_tensor, to_device
from caspi.randomness import generator

_LONGEST = 4_096  # positions of the longest sequence: 390 of 30 s of audio, 800 of its text, the rest for a context
_AHEAD = 2  # passes of the encoder that may wait, as clips
_FIRST = 0.25  # of a pass, before anything has begun
_PASS_SECONDS = 0.05  # of the encoder and the prompts over few clips on a GPU, where those over many take little more
_SEARCH_POSITIONS, _SEARCH_BYTES = 32_768, 4 << 30  # at most, of the cache for beam searches: 20 clips with 4 beams


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A request with its ticket. ids: of its prompt; forced: the last of them, with which its answer begins. limit: of
    tokens."""

    ticket: int
    request: DecodeRequest
    ids: list[int]
    forced: list[int]
    limit: int
    since: float = field(default_factory=time.monotonic)


@dataclass(frozen=True, slots=True)
class _Clips:
    """The next pass of the encoder."""

    group: list[_Waiting]
    audio: AudioBatch


class Engine:
    """Submit requests from any thread; one thread calls `poll` and gets their hypotheses as they are done."""

    def __init__(
        self,
        loaded: LoadedModel,
        *,
        dtype: torch.dtype | None = None,
        options: GeneratorOptions | None = None,
    ) -> None:
        """dtype: of the computation; None: that of the weights. Some of the decoder's weights are shared with the
        model: do not change it while the engine is in use."""
        self._loaded, self._dtype = replace(loaded, eight_bit={}), dtype
        self._device = next(loaded.model.parameters()).device
        weights = DecoderWeights.of(
            loaded.model, dtype or loaded.model.lm_head.weight.dtype, _LONGEST, loaded.eight_bit
        )
        options = options or GeneratorOptions.for_device(self._device)
        self._rows = options.rows
        network = Network.of(weights, kernels=options.kernels)
        self._generator = Generator(network, loaded.prompt, options)
        self._searcher = BeamSearch(network, loaded.prompt, options, _search_positions(weights))
        self._encode_seconds: Seconds = 800.0 if self._device.type == "cuda" else 60.0
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._submitted: deque[_Waiting] = deque()
        # On a GPU a thread makes the next batch while the device works; on a CPU it would only take its time.
        self._maker = ThreadPoolExecutor(1, "engine") if self._device.type == "cuda" else None
        self._making: Future[_Clips] | None = None
        self._made: set[int] = set()  # tickets in that batch
        self._too_large: list[tuple[int, Hypothesis | CaspiError]] = []  # requests that the encoder cannot hold
        self._cancelled: set[int] = set()
        self._running: dict[tuple[bool, int], _Waiting] = {}  # by whether it is searched, and its ticket there

    # --- for any thread

    def submit(self, request: DecodeRequest) -> int:
        """Returns a ticket. Requests are begun in the order in which they are submitted. Raises UsageError for one that
        can never begin."""
        if request.beams > self._rows:
            raise UsageError(f"a search with {request.beams} beams: at most {self._rows} are possible")
        prompt = self._loaded.prompt
        forced = prompt.language_prefix(request.language) if request.language else []
        forced += prompt.text_tokens(request.prefix) if request.prefix else []
        audio = audio_token_count(frame_count(len(request.samples)))
        ids = prompt.prefix(audio, request.context) + forced
        room = _LONGEST - len(ids)
        if room < min(request.limit, TOKENS_AT_LEAST):
            raise UsageError(
                f"a clip of {request.seconds:.1f} s with its context is {len(ids):,} tokens; with its text at most "
                f"{_LONGEST:,} are possible: shorten the context"
            )
        with self._lock:
            ticket = next(self._numbers)
            self._submitted.append(_Waiting(ticket, request, ids, forced, min(request.limit, room)))
        return ticket

    def cancel(self, ticket: int) -> None:
        """The request's hypothesis is never returned, unless it was already."""
        with self._lock:
            self._cancelled.add(ticket)

    @property
    def wants_more(self) -> bool:
        """Whether more requests would keep the device busy. It wants little before it has begun, so that it does not
        wait while the first clips are read."""
        share = _AHEAD if self._running else _FIRST
        with self._lock:
            seconds, count = sum(waiting.request.seconds for waiting in self._submitted), len(self._submitted)
        return seconds < share * self._encode_seconds and count < _AHEAD * self._rows

    @property
    def pending(self) -> int:
        """Requests that have no hypothesis yet."""
        return len(self._submitted) + len(self._made) + len(self._running)

    # --- for one thread

    def poll(self) -> list[tuple[int, Hypothesis | CaspiError]]:
        """Works for a moment; returns the requests that are done, with their tickets. A request that memory does not
        hold ends in an error, and the others go on. If anything else fails, all requests are forgotten, so that the
        engine can be used again."""
        try:
            return self._advance()
        except BaseException:
            self._forget_all()
            raise

    @torch.no_grad()
    def _advance(self) -> list[tuple[int, Hypothesis | CaspiError]]:
        self._forget_cancelled()
        if self._worth_encoding() and self._generator.waiting + self._searcher.waiting < self._rows:
            self._encode()
        ended = (
            [((False, number), found) for number, found in self._generator.advance()] if self._generator.busy else []
        )
        if self._searcher.busy:
            ended += [((True, number), found) for number, found in self._searcher.advance()]
        failed = [((False, number), error) for number, error in self._generator.take_failures()]
        failed += [((True, number), error) for number, error in self._searcher.take_failures()]
        results = [self._read(key, continuations) for key, continuations in ended]
        results += [(self._running.pop(key).ticket, error) for key, error in failed]
        results += self._too_large
        self._too_large = []
        return results

    def text_so_far(self, ticket: int) -> str:
        """What is written already of a request that is being decoded, without a search."""
        for (searched, number), waiting in self._running.items():
            if waiting.ticket == ticket and not searched:
                tokens = [*waiting.forced, *self._generator.tokens_so_far(number)]
                prompt = self._loaded.prompt
                # A character may be spread over several tokens.
                return prompt.parse(tokens)[1].rstrip("\ufffd") if prompt.asr_text in tokens else ""
        return ""

    def decode_each(
        self, requests: Iterable[DecodeRequest], should_stop: Callable[[], bool] = lambda: False
    ) -> Iterator[tuple[int, Hypothesis]]:
        """Hypotheses as they are done, with the number of their request. should_stop: asked between tokens; when it
        returns True, everything that is not done is dropped. See `results_of`."""
        try:
            yield from results_of(self, requests, should_stop)
        finally:
            self._forget_cancelled()

    def decode(self, requests: Sequence[DecodeRequest]) -> list[Hypothesis]:
        """Hypotheses in the order of the requests."""
        done = dict(self.decode_each(requests))
        return [done[number] for number in range(len(requests))]

    def _forget_cancelled(self) -> None:
        with self._lock:
            cancelled = self._cancelled
            self._cancelled = cancelled & self._made  # known again when their batch is made
            self._submitted = deque(waiting for waiting in self._submitted if waiting.ticket not in cancelled)
        for key in [key for key, waiting in self._running.items() if waiting.ticket in cancelled]:
            searched, number = key
            (self._searcher if searched else self._generator).cancel(number)
            del self._running[key]

    def _forget_all(self) -> None:
        if self._making is not None:
            self._making.cancel()
        with self._lock:
            self._submitted.clear()
            self._cancelled.clear()
        self._making, self._made, self._too_large = None, set(), []
        self._running.clear()
        self._generator.cancel_all()
        self._searcher.cancel_all()

    def _worth_encoding(self) -> bool:
        """Whether the next clips are to be encoded now, and not together with some that will come. A pass stops those
        that run for its time; on a GPU it begins once the others have waited as long, all together."""
        if self._maker is None or self._making is not None or not self._submitted:
            return bool(self._submitted or self._making)
        now = time.monotonic()
        with self._lock:
            waited = sum(now - waiting.since for waiting in self._submitted)
        return waited >= _PASS_SECONDS * len(self._running)

    def _encode(self) -> None:
        """Encodes the next clips and hands their prompts to the generator."""
        clips = self._next_clips()
        try:
            encoded = self._encoded(clips.audio)
        except torch.OutOfMemoryError:
            if len(clips.group) == 1:
                [waiting] = clips.group
                message = f"GPU memory does not hold one clip of {waiting.request.seconds:.1f} s in the encoder"
                self._too_large.append((waiting.ticket, CaspiError(message)))
                return
            self._encode_seconds /= 2
            torch.cuda.empty_cache()
            with self._lock:
                self._submitted.extendleft(reversed(clips.group))
            return
        for waiting, audio in zip(clips.group, encoded, strict=True):
            if waiting.ticket not in self._cancelled:  # while its batch was made
                job, searched = self._job(waiting, audio), waiting.request.searched
                self._running[searched, (self._searcher if searched else self._generator).add(job)] = waiting

    def _next_clips(self) -> _Clips:
        """The next batch for the encoder; begins the one after it."""
        if self._maker is None:
            return self._make(self._take())
        making = self._making or self._maker.submit(self._make, self._take())
        self._making, self._made = None, set()
        if self._fills_a_pass():
            group = self._take()
            self._making = self._maker.submit(self._make, group)
            self._made = {waiting.ticket for waiting in group}
        return making.result()

    def _fills_a_pass(self) -> bool:
        with self._lock:
            return sum(waiting.request.seconds for waiting in self._submitted) >= self._encode_seconds

    def _take(self) -> list[_Waiting]:
        """The next requests, as many as one pass of the encoder takes."""
        group: list[_Waiting] = []
        longest = 0.0
        with self._lock:
            while self._submitted:
                longest = max(longest, self._submitted[0].request.seconds)
                if group and longest * (len(group) + 1) > self._encode_seconds:
                    break
                group.append(self._submitted.popleft())
        return group

    def _make(self, group: list[_Waiting]) -> _Clips:
        batch = AudioBatch.of(*pad_clips([waiting.request.samples for waiting in group]))
        if self._device.type == "cuda":
            batch = each_tensor(batch, torch.Tensor.pin_memory)
        return _Clips(group, batch)

    def _encoded(self, batch: AudioBatch) -> Sequence[torch.Tensor]:
        """The audio embeddings of each clip."""
        model, dtype = self._loaded.model, self._dtype
        # Without need autocast only converts to fp32. In training, trained weights are fp32 and frozen ones are not.
        differs = dtype is not None and any(weight.dtype != dtype for weight in model.parameters())
        with evaluation_mode(model), torch.autocast(self._device.type, dtype=dtype, enabled=differs):
            return torch.split(encode(model, to_device(batch, self._device)), batch.tokens)

    def _job(self, waiting: _Waiting, audio: torch.Tensor) -> PromptJob:
        request = waiting.request
        return PromptJob(
            waiting.ids, audio, waiting.limit, request.min_tokens, beams=request.beams,
            length_penalty=request.length_penalty, no_loops=request.no_loops, **_sampling(request, waiting.limit),
        )  # fmt: skip

    def _read(
        self, key: tuple[bool, int], continuations: Sequence[Continuation]
    ) -> tuple[int, Hypothesis | CaspiError]:
        waiting = self._running.pop(key)
        first, *others = (self._hypothesis(waiting, continuation) for continuation in continuations)
        return waiting.ticket, replace(first, others=tuple(others))

    def _hypothesis(self, waiting: _Waiting, continuation: Continuation) -> Hypothesis:
        prompt = self._loaded.prompt
        tokens = [*waiting.forced, *continuation.tokens]
        log_probabilities = [0.0] * len(waiting.forced) + list(continuation.log_probabilities)  # forced is certain
        language, text = prompt.parse(tokens)
        named = prompt.asr_text in continuation.tokens
        return Hypothesis(
            text,
            language,
            truncated=not continuation.tokens or continuation.tokens[-1] != prompt.end,
            tokens=continuation.tokens,
            log_probabilities=continuation.log_probabilities,
            text_start=prompt.text_start(continuation.tokens),
            words=recognised_words(prompt, tokens, log_probabilities),
            language_probability=math.exp(sum(log_probabilities[: prompt.text_start(tokens)])) if named else None,
            score=continuation.score,
        )


def _search_positions(weights: DecoderWeights) -> int:
    return min(_SEARCH_POSITIONS, _SEARCH_BYTES // Cache.bytes_per_position(weights))


def _sampling(request: DecodeRequest, limit: int) -> dict[str, Any]:
    if request.sampling is None:
        return {}
    draw = generator(request.sampling.seed, 0, 0, "sampling")
    return {
        "numbers": (draw.random(limit, dtype=np.float32),),
        "temperature": request.sampling.temperature,
        "top_p": request.sampling.top_p,
    }
