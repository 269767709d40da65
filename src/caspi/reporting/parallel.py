"""Parallel coordinates: one axis for each parameter, one line for each run, as inline SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

_WIDTH, _HEIGHT = 720, 300
_SIDE, _TOP, _BOTTOM = 60, 54, 24


@dataclass(frozen=True, slots=True)
class Axis:
    """values: of every line, numbers or names. log: the scale."""

    name: str
    values: Sequence[float | str]
    log: bool = False


@dataclass(frozen=True, slots=True)
class Parallel:
    """best: the line that is drawn last and strongest. weak: lines in the background."""

    title: str
    axes: Sequence[Axis]
    best: int
    weak: frozenset[int] = frozenset()
    note: str = ""


def draw_parallel(chart: Parallel) -> Markup:
    """The chart as SVG; the page scales it."""
    count = len(chart.axes[0].values) if chart.axes else 0
    if not count:
        return Markup("<p>no data</p>")
    gap = (_WIDTH - 2 * _SIDE) / max(1, len(chart.axes) - 1)
    parts = [Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">').format(_WIDTH, _HEIGHT, chart.title)]
    places = []
    for number, axis in enumerate(chart.axes):
        x = _SIDE + number * gap
        heights, labels = _placed(axis)
        places.append([(round(x, 1), _y(height)) for height in heights])
        ends = round(x, 1), round(x, 1), _TOP, _HEIGHT - _BOTTOM
        parts.append(Markup('<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(*ends))
        name_y = _TOP - (20 if number % 2 else 36)  # neighbours at two heights, so that long names do not meet
        parts.append(_text(x, name_y, axis.name, "var(--ink)"))
        parts += [_text(x, _y(height) + (14 if height == 0 else -4), label, "var(--soft)") for height, label in labels]
    order = sorted(range(count), key=lambda one: (one == chart.best, one not in chart.weak))
    for one in order:
        colour, width, opacity = ("var(--c1)", 1.2, 0.7) if one not in chart.weak else ("var(--soft)", 1, 0.35)
        if one == chart.best:
            colour, width, opacity = "var(--c2)", 3, 1
        points = " ".join(f"{x},{y}" for x, y in (place[one] for place in places))
        line = Markup('<polyline fill="none" stroke="{}" stroke-width="{}" opacity="{}" points="{}"/>')
        parts.append(line.format(colour, width, opacity, points))
    return Markup("").join([*parts, Markup("</svg>")])


def _placed(axis: Axis) -> tuple[list[float], list[tuple[float, str]]]:
    """Heights of the values, from 0 to 1, and the labels of the axis with theirs."""
    numbers = [value for value in axis.values if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(numbers) < len(axis.values):
        names = sorted({str(value) for value in axis.values})
        heights = {name: number / max(1, len(names) - 1) for number, name in enumerate(names)}
        return [heights[str(value)] for value in axis.values], [(heights[name], name) for name in names]
    low, high = min(numbers), max(numbers)

    def scaled(value: float) -> float:
        if high == low:
            return 0.5
        if axis.log and low > 0:
            return math.log(value / low) / math.log(high / low)
        return (value - low) / (high - low)

    labels = [(scaled(low), f"{low:.3g}")] + ([(1.0, f"{high:.3g}")] if high > low else [])
    return [scaled(value) for value in numbers], labels


def _y(height: float) -> float:
    return round(_HEIGHT - _BOTTOM - height * (_HEIGHT - _TOP - _BOTTOM), 1)


def _text(x: float, y: float, text: str, colour: str) -> Markup:
    return Markup('<text x="{}" y="{}" text-anchor="middle" style="fill:{}">{}</text>').format(
        round(x, 1), y, colour, text
    )
