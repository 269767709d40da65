"""Which parts of the cache are in use."""

from __future__ import annotations

import bisect


class Spans:
    """Hands out contiguous spans of a range of positions, first fit."""

    def __init__(self, size: int) -> None:
        self._free: list[tuple[int, int]] = [(0, size)] if size else []  # (start, end), in order, never adjacent

    @property
    def free(self) -> int:
        """Positions that are not in use."""
        return sum(end - start for start, end in self._free)

    def take(self, length: int) -> int | None:
        """The start of a span that was free; None if there is none of this length."""
        for place, (start, end) in enumerate(self._free):
            if end - start >= length:
                if end - start == length:
                    del self._free[place]
                else:
                    self._free[place] = (start + length, end)
                return start
        return None

    def take_all(self, count: int, length: int) -> list[int] | None:
        """The starts of `count` spans; None, and nothing is taken, if there is no space for all of them."""
        starts: list[int] = []
        for _ in range(count):
            if (start := self.take(length)) is None:
                for taken in starts:
                    self.give_back(taken, length)
                return None
            starts.append(start)
        return starts

    def give_back(self, start: int, length: int) -> None:
        """Frees a span that `take` returned."""
        end = start + length
        place = bisect.bisect(self._free, (start, end))
        if place < len(self._free) and self._free[place][0] == end:
            end = self._free.pop(place)[1]
        if place and self._free[place - 1][1] == start:
            start = self._free.pop(place - 1)[0]
            place -= 1
        self._free.insert(place, (start, end))
