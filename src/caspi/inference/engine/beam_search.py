"""Beam search over any number of prompts at once: keeps the most likely beginnings of each and returns a list of the
best texts.

The rules are those of transformers' `generate(num_beams=...)`, so that results can be compared: of the `2 * beams` most
likely continuations, those that end and are among the first `beams` are finished, with their score divided by
`length ** length_penalty`; the best that do not end continue; a search stops when no beam that continues scores better,
at its present length, than the worst of `beams` finished ones.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from caspi.errors import CaspiError
from caspi.inference.engine.generator import GeneratorOptions
from caspi.inference.engine.job_queue import JobQueue
from caspi.inference.engine.network import Cache, Network
from caspi.inference.engine.packing import Continuation, PromptJob, copy_spans, on_device, pack_prompts
from caspi.inference.engine.spans import Spans
from caspi.inference.loops import loops
from caspi.model.prompt import Prompt
from caspi.model.timestamps import without_times

_log = logging.getLogger(__name__)

_IMPOSSIBLE = -1e9


@dataclass(slots=True)
class _Beam:
    """A beginning that continues, and the sum of its log-probabilities."""

    tokens: tuple[int, ...] = ()
    log_probabilities: tuple[float, ...] = ()
    total: float = 0.0


@dataclass(slots=True)
class _Search:
    """One prompt. beams: with a row each; at first one. finished: best first."""

    ticket: int
    job: PromptJob
    starts: list[int]
    beams: list[_Beam] = field(default_factory=lambda: [_Beam()])
    finished: list[Continuation] = field(default_factory=list)
    ended: bool = False

    def advance(self, candidates: Sequence[tuple[float, int, int]], end: int) -> list[int]:
        """Takes the best candidates (total, beam, token), best first. Returns the beam that each new beam continues."""
        length = len(self.beams[0].tokens) + 1
        following: list[tuple[_Beam, int]] = []
        stopping = 0
        for rank, (total, parent, token) in enumerate(candidates):
            before = self.beams[parent]
            beam = _Beam((*before.tokens, token), (*before.log_probabilities, total - before.total), total)
            if token != end and length < self.job.limit:
                if len(following) < self.job.beams:
                    following.append((beam, parent))
                continue
            stopping += 1
            if rank < self.job.beams:
                score = total / length**self.job.length_penalty
                self.finished.append(Continuation(beam.tokens, beam.log_probabilities, score))
        self.finished = sorted(self.finished, key=lambda one: -one.score)[: self.job.beams]
        if stopping == len(candidates):
            self.ended = True
            return []
        self.beams = [beam for beam, _ in following]
        if len(self.finished) == self.job.beams:
            best = self.beams[0].total / length**self.job.length_penalty
            self.ended = best <= self.finished[-1].score
        return [parent for _, parent in following]

    def moved(self, parents: Sequence[int]) -> list[tuple[int, int, int]]:
        """What beams that continue another beam need from its part of the cache: see packing.copy_spans."""
        prompt, number = len(self.job.ids), len(self.beams[0].tokens) - 1
        return [
            (self.starts[parent] + prompt, self.starts[place] + prompt, number)
            for place, parent in enumerate(parents)
            if parent != place and number and not self.ended
        ]


class BeamSearch(JobQueue[_Search]):
    """Takes jobs with more than one beam, gives back their finished texts, best first. For one thread."""

    def __init__(self, network: Network, prompt: Prompt, options: GeneratorOptions, positions: int) -> None:
        """options.rows: beams of all prompts at once. positions: of the cache, allocated with the first job."""
        super().__init__()
        self._network, self._prompt, self._end = network, prompt, prompt.end
        self._device = network.weights.embedding.device
        self._rows, self._prompt_tokens, self._positions = options.rows, options.prompt_tokens, positions
        self._cache: Cache | None = None
        self._spans = Spans(0)

    @torch.no_grad()
    def advance(self) -> list[tuple[int, list[Continuation]]]:
        """Begins what fits, takes one token for every beam, returns the jobs that have ended. If memory runs out, half
        as many beams are searched at once from then on, and the jobs begin again."""
        try:
            with torch.autocast(self._device.type, enabled=False):
                begun = self._admit()
                if begun:
                    self._begin(begun)
                elif self._active:
                    self._step(list(self._active.values()))
        except torch.OutOfMemoryError:
            self._shrink()
        ended = [search for search in self._active.values() if search.ended]
        for search in ended:
            del self._active[search.ticket]
            self._release(search)
        return [(search.ticket, search.finished) for search in ended]

    def _shrink(self) -> None:
        """Gives up the only search; of several, all wait again, and fewer begin at once."""
        searches = sorted(self._active.values(), key=lambda search: search.ticket)
        self._waiting.extendleft((search.ticket, search.job) for search in reversed(searches))
        self._active.clear()
        self._cache, self._spans = None, Spans(0)
        torch.cuda.empty_cache()
        if len(searches) < 2:
            beams = self._waiting[0][1].beams
            self._fail_first(CaspiError(f"GPU memory does not hold a search with {beams} beams: use fewer"))
            return
        self._rows = max(1, sum(search.job.beams for search in searches) // 2)
        self._positions //= 2
        _log.warning(f"out of GPU memory: at most {self._rows} beams are searched at once")

    def _admit(self) -> list[_Search]:
        begun: list[_Search] = []
        tokens = 0
        while self._waiting:
            ticket, job = self._waiting[0]
            tokens += len(job.ids)
            used = sum(search.job.beams for search in self._active.values())
            if (used and used + job.beams > self._rows) or (begun and tokens > self._prompt_tokens):
                break
            if (starts := self._take(job)) is None:
                break
            self._waiting.popleft()
            self._active[ticket] = _Search(ticket, job, starts)  # at once: its spans are in use from now on
            begun.append(self._active[ticket])
        return begun

    def _take(self, job: PromptJob) -> list[int] | None:
        """A span for every beam; None if there is no space. The cache grows for a job that is larger than it."""
        if self._cache is None or (not self._active and self._spans.free < job.beams * job.span):
            self._positions = max(self._positions, job.beams * job.span)
            self._cache, self._spans = Cache.of(self._network.weights, self._positions), Spans(self._positions)
        return self._spans.take_all(job.beams, job.span)

    def _release(self, search: _Search) -> None:
        for start in search.starts:
            self._spans.give_back(start, search.job.span)

    def _begin(self, begun: Sequence[_Search]) -> None:
        """Runs prompts; their first candidates come from a single beam."""
        assert self._cache is not None  # allocated with the spans
        jobs, firsts = [search.job for search in begun], [search.starts[0] for search in begun]
        prompts = pack_prompts(jobs, firsts, self._prompt.audio, self._device)
        logits = self._network.prompt_pass(self._cache, prompts, torch.cat([job.audio for job in jobs]))
        self._choose(begun, logits)
        copy_spans(
            self._cache,
            [(s.starts[0], start, len(s.job.ids)) for s in begun for start in s.starts[1:]],
            self._device,
        )

    def _step(self, searches: Sequence[_Search]) -> None:
        assert self._cache is not None
        tokens = [beam.tokens[-1] for search in searches for beam in search.beams]
        starts = [start for search in searches for start, _ in zip(search.starts, search.beams, strict=False)]
        lengths = [len(search.job.ids) + len(beam.tokens) - 1 for search in searches for beam in search.beams]
        given = torch.split(on_device([*tokens, *starts, *lengths], self._device), len(tokens))
        self._choose(searches, self._network.step_pass(self._cache, *given))

    def _choose(self, searches: Sequence[_Search], logits: torch.Tensor) -> None:
        """Continues every search by its best candidates, and moves the keys and values of beams that changed places."""
        assert self._cache is not None
        scores = logits.float().log_softmax(dim=1)
        vocabulary = scores.shape[1]
        most = 2 * max(search.job.beams for search in searches)
        chosen = []
        for search, rows in zip(searches, torch.split(scores, [len(s.beams) for s in searches]), strict=True):
            totals = rows + torch.tensor([[beam.total] for beam in search.beams], device=self._device)
            if len(search.beams[0].tokens) < search.job.minimum:
                totals[:, self._end] = _IMPOSSIBLE
            if search.job.no_loops:
                self._forbid_loops(search, totals)
            chosen.append(totals.flatten().topk(most))
        values = torch.stack([best.values for best in chosen]).tolist()
        places = torch.stack([best.indices for best in chosen]).tolist()
        copies: list[tuple[int, int, int]] = []
        for search, totals_of, places_of in zip(searches, values, places, strict=True):
            candidates = [
                (total, *divmod(place, vocabulary)) for total, place in zip(totals_of, places_of, strict=True)
            ]
            copies += search.moved(search.advance(candidates[: 2 * search.job.beams], self._end))
        copy_spans(self._cache, copies, self._device)

    def _forbid_loops(self, search: _Search, totals: torch.Tensor) -> None:
        """Makes candidates impossible that repeat themselves, until none of the best does. totals [beams, vocabulary],
        changed in place."""
        width = totals.shape[1]
        flat = totals.view(-1)
        while True:
            looping = [
                place
                for place in flat.topk(2 * search.job.beams).indices.tolist()
                if loops(without_times(self._prompt.parse([*search.beams[place // width].tokens, place % width])[1]))
            ]
            if not looping:
                return
            flat[looping] = _IMPOSSIBLE
