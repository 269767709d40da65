"""How recordings are decoded, as the command line gives it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DecodingOptions:
    """beams: of a beam search; 1: the most likely token. loop_guard: a window whose text repeats itself is decoded
    again with repetitions forbidden, and counted. previous_text: every window gets the text of the window before it in
    its system turn; the windows of a recording are then decoded one after another."""

    beams: int = 1
    loop_guard: bool = False
    previous_text: bool = False


GREEDY = DecodingOptions()
