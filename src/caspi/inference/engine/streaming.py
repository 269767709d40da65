"""The loop of everything that takes work by tickets: submit while there is room, poll, return results as they come."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol, TypeVar

from caspi.errors import CaspiError

Work_contra = TypeVar("Work_contra", contravariant=True)
Result_co = TypeVar("Result_co", covariant=True)


class Worker(Protocol[Work_contra, Result_co]):
    """The engine, or the transcriber around it."""

    @property
    def wants_more(self) -> bool: ...
    def submit(self, work: Work_contra, /) -> int: ...
    def cancel(self, ticket: int, /) -> None: ...
    def poll(self) -> Sequence[tuple[int, Result_co | CaspiError]]: ...


def results_of(
    worker: Worker[Work_contra, Result_co],
    source: Iterable[Work_contra],
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[tuple[int, Result_co]]:
    """Results as they are done, with the number of their work in the source. What is not done is cancelled when
    should_stop returns True, when the caller leaves, and when the source or the worker raises. Raises CaspiError for
    work that cannot be done. No other thread may poll the worker at the same time."""
    numbers: dict[int, int] = {}
    numbered = enumerate(source)
    exhausted = False
    try:
        while (numbers or not exhausted) and not should_stop():
            while not exhausted and worker.wants_more:
                if (following := next(numbered, None)) is None:
                    exhausted = True
                else:
                    numbers[worker.submit(following[1])] = following[0]
            for ticket, result in worker.poll():
                number = numbers.pop(ticket)
                if isinstance(result, CaspiError):
                    raise result
                yield number, result
    finally:
        for ticket in numbers:
            worker.cancel(ticket)
