"""Charts of a report page: line charts as inline SVG, and bar charts drawn with CSS."""

from __future__ import annotations

import math
from dataclasses import dataclass

from markupsafe import Markup

_WIDTH, _HEIGHT = 720, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 14, 26, 38
_COLOURS = ("var(--c1)", "var(--c2)", "var(--c3)", "var(--c4)")
_TICKS = 5


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a chart. dots: each point is marked."""

    name: str
    points: list[tuple[float, float]]
    dots: bool = False


@dataclass(frozen=True, slots=True)
class Chart:
    """Lines over a shared axis; the vertical axis starts at 0."""

    title: str
    lines: list[Line]
    x_title: str
    y_title: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Bar:
    """A rate (a fraction, shown as percent), its interval, and a note beside it."""

    name: str
    value: float
    interval: tuple[float, float] | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Bars:
    """A bar chart with one bar per row on a common scale; it is drawn with CSS, so that it fits a phone."""

    title: str
    bars: list[Bar]
    note: str = ""

    @property
    def full(self) -> float:
        """The value at the right end. A wide interval is cut off rather than making the bars too small."""
        longest = max((bar.value for bar in self.bars), default=0.0)
        widest = max((bar.interval[1] for bar in self.bars if bar.interval), default=0.0)
        return max(longest, min(widest, 2 * longest if longest else 1.0)) or 1.0

    @property
    def ticks(self) -> list[float]:
        """Round values on the scale, up to its right end."""
        return [value for value in ticks(0.0, self.full) if value <= self.full * 1.0001]


def ticks(low: float, high: float) -> list[float]:
    """About five round numbers (1, 2 or 5 times a power of ten) from at or below `low` to at or above `high`."""
    span = (high - low) or 1.0
    power = 10 ** math.floor(math.log10(span / _TICKS))
    step = next(step for m in (1, 2, 5, 10) if span / (step := m * power) <= _TICKS)
    first = math.floor(low / step)
    return [n * step for n in range(first, max(first + 1, math.ceil(high / step)) + 1)]


def draw(chart: Chart) -> Markup:
    """The chart as SVG of `_WIDTH` by `_HEIGHT`; the page scales it."""
    points = [point for line in chart.lines for point in line.points]
    if not points:
        return Markup("<p>no data</p>")
    across = ticks(min(x for x, _ in points), max(x for x, _ in points))
    up = ticks(0.0, max(y for _, y in points))

    def at(x: float, y: float) -> tuple[float, float]:
        px = _LEFT + (x - across[0]) / (across[-1] - across[0]) * (_WIDTH - _LEFT - _RIGHT)
        py = _HEIGHT - _BOTTOM - y / up[-1] * (_HEIGHT - _TOP - _BOTTOM)
        return round(px, 1), round(py, 1)

    parts = [Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">').format(_WIDTH, _HEIGHT, chart.title)]
    for value in up:
        y = at(across[0], value)[1]
        grid = Markup('<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(_LEFT, _WIDTH - _RIGHT, y, y)
        parts += [grid, _text(_LEFT - 6, y + 4, _number(value), "end")]
    parts += [_text(at(value, 0)[0], _HEIGHT - 20, _number(value), "middle") for value in across]
    for number, line in enumerate(chart.lines):
        colour = _COLOURS[number % len(_COLOURS)]
        path = " ".join(f"{x},{y}" for x, y in (at(*point) for point in line.points))
        parts.append(Markup('<polyline fill="none" stroke-width="2" stroke="{}" points="{}"/>').format(colour, path))
        for point in line.points if line.dots or len(line.points) == 1 else ():  # a line with one point is invisible
            x, y = at(*point)
            parts.append(Markup('<circle cx="{}" cy="{}" r="3" style="fill:{}"/>').format(x, y, colour))
    parts += [_text(_WIDTH - _RIGHT, _HEIGHT - 4, chart.x_title, "end"), _text(4, _TOP - 12, chart.y_title, "start")]
    return Markup("").join([*parts, Markup("</svg>"), _legend(chart)])


def _number(value: float) -> str:
    """`0.25`, `1,500,000`: no exponents."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:g}"


def _legend(chart: Chart) -> Markup:
    """The names of the lines, below the chart, where they also fit on a phone."""
    if len(chart.lines) < 2:
        return Markup("")
    names = [
        Markup('<span><i style="background:{}"></i>{}</span>').format(_COLOURS[number % len(_COLOURS)], line.name)
        for number, line in enumerate(chart.lines)
    ]
    return Markup('<p class="legend">') + Markup("").join(names) + Markup("</p>")


def _text(x: float, y: float, text: str, anchor: str, colour: str = "var(--soft)") -> Markup:
    return Markup('<text x="{}" y="{}" text-anchor="{}" style="fill:{}">{}</text>').format(x, y, anchor, colour, text)
