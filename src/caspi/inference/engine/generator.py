"""Continues any number of prompts at once. A row that ends is given to the next prompt, so that none waits for the
longest; what a prompt gets does not depend on the others."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from caspi.errors import CaspiError
from caspi.inference.engine.job_queue import JobQueue
from caspi.inference.engine.network import Cache, Network
from caspi.inference.engine.packing import Continuation, PromptJob, copy_spans, on_device, pack_prompts
from caspi.inference.engine.rows import Choice, Rows, advance
from caspi.inference.engine.spans import Spans
from caspi.inference.engine.step_graphs import Stepper
from caspi.model.prompt import Prompt

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class GeneratorOptions:
    """rows: sequences that are decoded at once. cache_bytes: None: from free memory. positions: of the cache, at most;
    None: as many as the rows can use. prompt_tokens: of all prompts in one pass, at most. steps: between two looks at
    which rows are done. graphs: CUDA graphs on a GPU. kernels: of Triton on a GPU; without them there are no graphs."""

    rows: int
    prompt_tokens: int
    steps: int
    cache_bytes: int | None = None
    positions: int | None = None
    graphs: bool = True
    kernels: bool = True

    @classmethod
    def for_device(cls, device: torch.device) -> GeneratorOptions:
        """On a CPU more rows are no faster, and looking costs nothing."""
        if device.type == "cuda":
            return cls(rows=512, prompt_tokens=16_384, steps=4)
        return cls(rows=128, prompt_tokens=4_096, steps=1, graphs=False)


@dataclass(slots=True)
class _Active:
    """A job in the rows. finished: continuations that ended, by their number."""

    ticket: int
    job: PromptJob
    rows: list[int]
    starts: list[int]
    finished: dict[int, Continuation] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Look:
    """A copy of the state on the host, complete when `ready` is. tickets: of the rows when it was taken."""

    tickets: dict[int, tuple[int, int]]
    done: torch.Tensor
    counts: torch.Tensor
    tokens: torch.Tensor
    log_probabilities: torch.Tensor
    ready: torch.cuda.Event | None = None


_CPU_CACHE_BYTES = 1 << 30
_GPU_SHARE = 0.6  # of free memory; the rest is for activations


class Generator(JobQueue[_Active]):
    """Takes jobs, gives back their continuations as they end. For one thread."""

    def __init__(self, network: Network, prompt: Prompt, options: GeneratorOptions) -> None:
        super().__init__()
        self._network, self._end, self._audio_token, self._options = network, prompt.end, prompt.audio, options
        self._device = network.weights.embedding.device
        self._looks: deque[_Look] = deque()
        self._seen: _Look | None = None  # the last one that was collected
        self._positions = 0

    @torch.no_grad()
    def advance(self) -> list[tuple[int, list[Continuation]]]:
        """Begins what fits, generates a few tokens, returns the jobs that have ended since. A job that has begun always
        ends; if memory runs out, the cache is made smaller, and the jobs in it begin again."""
        try:
            with torch.autocast(self._device.type, enabled=False):
                self._admit()
                if self._active:
                    self._step()
        except torch.OutOfMemoryError:
            if not self._shrink():
                raise
        lag = 1 if self._device.type == "cuda" and len(self._active) > _FEW else 0
        ended: list[tuple[int, list[Continuation]]] = []
        while len(self._looks) > lag:
            ended += self._collect(self._looks.popleft())
        return ended

    def tokens_so_far(self, ticket: int) -> tuple[int, ...]:
        """Of the first continuation of a job that has begun; behind by a few tokens."""
        active, look = self._active.get(ticket), self._seen
        if active is None or look is None or look.tickets.get(active.rows[0]) != (ticket, 0):
            return ()
        row = active.rows[0]
        return tuple(look.tokens[row, : int(look.counts[row])].tolist())

    # --- memory

    def _allocate(self, positions: int, limit: int) -> None:
        rows = self._options.rows
        self._cache, positions = self._new_cache(positions)
        self._positions = positions
        self._rows = Rows.of(rows, limit, self._device)
        self._spans = Spans(positions)
        self._spans.take(1)  # position 0 is of the row that fills incomplete batches
        self._free_rows = list(range(rows))[::-1]
        self._stepper = Stepper(
            self._network, self._cache, self._rows, graphs=self._options.graphs and self._options.kernels
        )
        self._looks.clear()
        self._seen = None
        self._host_copies = self._pinned_copies()
        size = positions * Cache.bytes_per_position(self._network.weights) / 2**30
        _log.debug(f"cache of {positions:,} positions, {size:.2f} GiB, for {rows} rows")

    def _new_cache(self, positions: int) -> tuple[Cache, int]:
        """A cache of this size, or of a half or less of it if memory does not hold that."""
        while True:
            try:
                return Cache.of(self._network.weights, positions), positions
            except torch.OutOfMemoryError:
                if positions <= _USUAL_PROMPT + _USUAL_LIMIT:
                    raise
                torch.cuda.empty_cache()
                positions //= 2

    def _ensure_space(self, job: PromptJob) -> None:
        """Allocates before the first job, and anew for a job that is larger than all before."""
        limit = max(job.limit, self._rows.limit) if self._positions else max(job.limit, _USUAL_LIMIT)
        needed = job.copies * job.span + 1
        if self._positions >= needed and self._rows.limit >= job.limit and self._options.rows >= job.copies:
            return
        if self._active:
            return  # not before they have ended
        if self._options.rows < job.copies:
            raise CaspiError(f"{job.copies} continuations of one prompt: at most {self._options.rows} are possible")
        self._allocate(max(needed, self._positions or self._usual_positions(limit)), limit)
        if self._positions < needed:
            raise CaspiError(f"GPU memory holds {self._positions:,} tokens, but one request needs {needed:,}")

    def _usual_positions(self, limit: int) -> int:
        """As many as memory holds, but not more than all rows can use."""
        most = self._options.positions or self._options.rows * (_USUAL_PROMPT + limit)
        budget = self._options.cache_bytes
        if budget is None and self._device.type == "cuda":
            unused = torch.cuda.memory_reserved(self._device) - torch.cuda.memory_allocated(self._device)
            budget = int(_GPU_SHARE * (torch.cuda.mem_get_info(self._device)[0] + unused))
        return min(most, (budget or _CPU_CACHE_BYTES) // Cache.bytes_per_position(self._network.weights))

    def _shrink(self) -> bool:
        """Half the cache; the jobs in it go back to the front of those that wait. False if it would not hold them."""
        jobs = [(active.ticket, active.job) for active in sorted(self._active.values(), key=lambda one: one.ticket)]
        largest = max((job.copies * job.span for _, job in [*jobs, *self._waiting]), default=0)
        if self._positions // 2 <= largest:
            return False
        self._active.clear()
        self._waiting.extendleft(reversed(jobs))
        positions, limit = self._positions // 2, self._rows.limit
        del self._cache, self._stepper, self._rows
        torch.cuda.empty_cache()
        _log.warning(f"out of GPU memory: the cache is made smaller, to {positions:,} positions")
        self._allocate(positions, limit)
        return True

    # --- prompts

    def _admit(self) -> None:
        """Moves waiting jobs into rows, in order, while there is space."""
        while self._waiting:
            try:
                self._ensure_space(self._waiting[0][1])
            except CaspiError as error:
                self._fail_first(error)
                continue
            enough = min(sum(job.copies for _, job in self._waiting), max(1, self._options.rows // 4))
            if self._active and len(self._free_rows) < enough:
                return  # a pass over few prompts costs nearly as much as one over many
            if not (group := self._placed()):
                return
            self._begin(group)

    def _placed(self) -> list[_Active]:
        """The next jobs that fit into rows, the cache, and one pass."""
        group: list[_Active] = []
        tokens = 0
        while self._waiting:
            ticket, job = self._waiting[0]
            tokens += len(job.ids)
            fits = job.limit <= self._rows.limit and job.copies <= len(self._free_rows)
            if not fits or (group and tokens > self._options.prompt_tokens):
                break
            if (starts := self._spans.take_all(job.copies, job.span)) is None:
                break
            self._waiting.popleft()
            group.append(_Active(ticket, job, [self._free_rows.pop() for _ in starts], starts))
        for active in group:
            self._active[active.ticket] = active
        return group

    def _begin(self, group: Sequence[_Active]) -> None:
        """Runs the prompts, sets up their rows, and chooses the first tokens."""
        jobs, firsts = [active.job for active in group], [active.starts[0] for active in group]
        prompts = pack_prompts(jobs, firsts, self._audio_token, self._device)
        logits = self._network.prompt_pass(self._cache, prompts, torch.cat([job.audio for job in jobs]))
        further = [(a.starts[0], start, len(a.job.ids)) for a in group for start in a.starts[1:]]
        copy_spans(self._cache, further, self._device)
        rows = self._rows
        numbers = [
            (row, start, len(active.job.ids), active.job.limit, active.job.minimum, place)
            for place, active in enumerate(group)
            for row, start in zip(active.rows, active.starts, strict=True)
        ]
        which, starts, lengths, limits, minimums, copies = on_device(np.array(numbers).T, self._device)
        rows.starts[which], rows.lengths[which], rows.limits[which] = starts, lengths, limits
        rows.minimums[which] = minimums
        rows.counts.index_fill_(0, which, 0)
        rows.done.index_fill_(0, which, False)
        self._set_sampling(group, which)
        advance(rows, which, logits[copies], self._choice(group))

    def _set_sampling(self, group: Sequence[_Active], which: torch.Tensor) -> None:
        rows = self._rows
        sampled = [active for active in group if active.job.numbers]
        rows.temperature[which] = on_device(
            np.array([a.job.temperature if a.job.numbers else 0.0 for a in group for _ in a.starts], np.float32),
            self._device,
        )
        if not sampled:
            return
        rows.top_p[which] = on_device(
            np.array([a.job.top_p for a in group for _ in a.starts], np.float32), self._device
        )
        for active in sampled:
            for row, numbers in zip(active.rows, active.job.numbers, strict=True):
                rows.numbers[row, : len(numbers)] = on_device(np.asarray(numbers, np.float32), self._device)

    # --- steps

    def _choice(self, group: Sequence[_Active]) -> Choice:
        sampled = [active.job for active in group if active.job.numbers]
        minimum = any(active.job.minimum for active in group)
        return Choice(self._end, minimum, bool(sampled), any(job.top_p < 1 for job in sampled))

    def _step(self) -> None:
        tickets = {
            row: (active.ticket, number)
            for active in self._active.values()
            for number, row in enumerate(active.rows)
            if number not in active.finished
        }
        self._stepper.steps(sorted(tickets), self._options.steps, self._choice(list(self._active.values())))
        self._looks.append(self._look(tickets))

    def _pinned_copies(self) -> deque[tuple[torch.Tensor, ...]]:
        """Memory for some looks on the host, that the device can copy into while the host works; none on a CPU."""
        if self._device.type != "cuda":
            return deque()
        return deque(
            tuple(torch.empty(part.shape, dtype=part.dtype, pin_memory=True) for part in self._rows.results)
            for _ in range(_LOOKS)
        )

    def _look(self, tickets: dict[int, tuple[int, int]]) -> _Look:
        state = self._rows.results
        if self._device.type != "cuda":
            return _Look(tickets, *state)
        copies = self._host_copies[0]
        self._host_copies.rotate()
        for copy, part in zip(copies, state, strict=True):
            copy.copy_(part, non_blocking=True)
        ready = torch.cuda.Event()  # type: ignore[no-untyped-call]
        ready.record()
        done, counts, tokens, log_probabilities = copies
        return _Look(tickets, done, counts, tokens, log_probabilities, ready)

    def _collect(self, look: _Look) -> list[tuple[int, list[Continuation]]]:
        """The jobs that have ended."""
        if look.ready is not None:
            look.ready.synchronize()
        self._seen = look
        done, counts = look.done.numpy(), look.counts.numpy()
        ended = []
        for row, (ticket, number) in look.tickets.items():
            active = self._active.get(ticket)
            if not done[row] or active is None or number in active.finished or active.rows[number] != row:
                continue
            count = int(counts[row])
            active.finished[number] = Continuation(
                tuple(look.tokens[row, :count].tolist()), tuple(look.log_probabilities[row, :count].tolist())
            )
            if len(active.finished) == active.job.copies:
                del self._active[ticket]
                self._release(active)
                ended.append((ticket, [active.finished[n] for n in range(active.job.copies)]))
        return ended

    def _release(self, active: _Active) -> None:
        self._free_rows += active.rows
        for start in active.starts:
            self._spans.give_back(start, active.job.span)


_LOOKS = 3  # copies of the state on the host: that are being written, or waited for, or read
_FEW = 8  # jobs: with more, the host looks at the state before last, and never waits for the device
_USUAL_LIMIT = 800  # tokens: of 30 s
_USUAL_PROMPT = 480  # tokens: of 30 s with some context
