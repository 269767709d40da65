"""How recordings are decoded, as the command line gives it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DecodingOptions:
    """beams: of a beam search; 1: the most likely token. loop_guard: a window whose text repeats itself is decoded
    again with repetitions forbidden, and counted. previous_text: every window gets the text of the window before it in
    its system turn; the windows of a recording are then decoded one after another. temperatures: 0 is the most likely
    token, more draws tokens at random; each further one is tried for windows whose text is unlikely or repeats itself
    (Radford et al. 2022, arXiv:2212.04356, section 4.5)."""

    beams: int = 1
    loop_guard: bool = False
    previous_text: bool = False
    temperatures: tuple[float, ...] = (0.0,)


GREEDY = DecodingOptions()
HOTTEST = 2.0  # temperature: above it the tokens are nearly those of no model
