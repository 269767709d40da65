"""One step of all rows: run as it is, or on a GPU as a CUDA graph, so that the host does not launch each kernel."""

from __future__ import annotations

import torch

from caspi.inference.engine.network import Cache, Network
from caspi.inference.engine.rows import Choice, Rows, advance

_SIZES = (1, 2, 4, 8, 16, 32, 64, 96, 128, 192, 256, 384, 512, 768, 1024)


class Stepper:
    """Steps the rows that `which` names."""

    def __init__(self, network: Network, cache: Cache, rows: Rows, *, graphs: bool) -> None:
        """graphs: capture a graph for each number of rows, when it is first needed."""
        self._network, self._cache, self._rows = network, cache, rows
        self._graphs: dict[tuple[int, Choice], torch.cuda.CUDAGraph] = {}
        self._use_graphs = graphs
        self._which = torch.empty_like(rows.token)

    def steps(self, which: list[int], count: int, choice: Choice) -> None:
        """`count` tokens for every row of `which`, unless it is done before."""
        idle = len(self._rows.token) - 1  # a row that is always done
        size = next((size for size in _SIZES if size >= len(which)), len(which)) if self._use_graphs else len(which)
        padded = torch.tensor(which + [idle] * (size - len(which)))
        if self._which.is_cuda:
            padded = padded.pin_memory()
        if size > len(self._which):
            self._which, self._graphs = self._which.new_empty(size), {}
        self._which[:size].copy_(padded, non_blocking=True)
        if not self._use_graphs:
            for _ in range(count):
                self._step(size, choice)
            return
        if (size, choice) not in self._graphs:
            self._graphs[size, choice] = self._captured(size, choice)
        for _ in range(count):
            self._graphs[size, choice].replay()

    def _step(self, size: int, choice: Choice) -> None:
        rows, which = self._rows, self._which[:size]
        lengths = rows.lengths[which]
        logits = self._network.step_pass(self._cache, rows.token[which], rows.starts[which], lengths)
        rows.lengths[which] = torch.where(rows.done[which], lengths, lengths + 1)
        advance(rows, which, logits, choice)

    def _captured(self, size: int, choice: Choice) -> torch.cuda.CUDAGraph:
        """Captures a step; the step that warms up runs on rows that are done, and changes nothing."""
        wanted = self._which[:size].clone()
        self._which[:size] = len(self._rows.token) - 1
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):
                self._step(size, choice)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # Other threads go on: they read the next clips and, in training, the next batch.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            self._step(size, choice)
        self._which[:size] = wanted
        return graph
