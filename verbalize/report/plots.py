"""Figures with two axes as inline SVG: scatter with a Pareto front, best value so far, bars, parallel coordinates.

Like `figures`: plain strings, colours from CSS classes, no style attributes, every label escaped. Points and lines that
stand for a trial carry `data-trial`, so the report's script can mark the same trial in every figure and in the table.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from verbalize.report.figures import SERIES, Scale, nice_step, scale_for, short
from verbalize.report.text import one_line

WIDTH = 960.0  # about the page's own width, so that text in figures is as large as beside them
GRADES = 5  # shades of a line by how good its trial was, worst 0: classes g0 ... g4 of report.css


@dataclass(frozen=True)
class Point:
    """A point with an optional vertical interval: `label` on hover, `name` beside it, `front` joins it to the front."""

    x: float
    y: float
    label: str
    low: float = math.nan
    high: float = math.nan
    series: int = 0
    name: str = ""
    front: bool = False
    trial: int | None = None


@dataclass(frozen=True)
class Axis:
    """A coordinate of a parallel plot: positions in [0, 1] by trial (nan: the trial has no such value), tick labels
    with their positions.
    """

    name: str
    places: Sequence[float]
    ticks: Sequence[tuple[float, str]]


class Plane:
    """A rectangle with two linear scales, ticks and grid; turns values into coordinates."""

    def __init__(self, xs: Scale, ys: Scale, width: float, height: float, left: float = 52, bottom: float = 42) -> None:
        self.xs, self.ys, self.width, self.height = xs, ys, width, height
        self.left, self.bottom, self.top, self.right = left, bottom, 14.0, 16.0

    def x(self, value: float) -> float:
        return self.left + (value - self.xs.low) / (self.xs.high - self.xs.low) * (self.width - self.left - self.right)

    def y(self, value: float) -> float:
        share = (value - self.ys.low) / (self.ys.high - self.ys.low)
        return self.height - self.bottom - share * (self.height - self.bottom - self.top)

    def frame(self, x_name: str, y_name: str) -> list[str]:
        """Grid lines, ticks and the names of the axes."""
        parts, base = [], self.height - self.bottom
        for value in ticks_of(self.ys):
            parts.append(
                f'<line class="grid" x1="{self.left}" x2="{self.width - self.right}" y1="{self.y(value):.1f}" '
                f'y2="{self.y(value):.1f}"/><text class="tick" x="{self.left - 8}" y="{self.y(value) + 4:.1f}" '
                f'text-anchor="end">{short(value)}</text>'
            )
        for value in ticks_of(self.xs):
            parts.append(
                f'<text class="tick" x="{self.x(value):.1f}" y="{base + 17:.1f}" text-anchor="middle">'
                f"{short(value)}</text>"
            )
        parts.append(
            f'<text class="tick named" x="{self.width - self.right}" y="{base + 34:.1f}" text-anchor="end">'
            f"{escape(one_line(x_name))} →</text>"
            f'<text class="tick named" x="{self.left}" y="{self.top - 4:.1f}">↑ {escape(one_line(y_name))}</text>'
        )
        return parts


def ticks_of(scale: Scale) -> list[float]:
    """Round values from one end of a scale to the other, about five."""
    step = nice_step(scale.high - scale.low)
    return [scale.low + i * step for i in range(round((scale.high - scale.low) / step) + 1)]


def scatter(points: Sequence[Point], x_name: str, y_name: str, title: str) -> Markup:
    """Points with intervals; those on the front are joined by steps: up to here nothing better costs less."""
    width, height = WIDTH, 400.0
    ends = [value for p in points for value in (p.y, p.low, p.high)]
    plane = Plane(scale_for([p.x for p in points]), _close_scale(ends), width, height)
    parts = plane.frame(x_name, y_name)
    steps = sorted(((p.x, p.y) for p in points if p.front), key=lambda one: (one[0], one[1]))
    if len(steps) > 1:
        path = f"M{plane.x(steps[0][0]):.1f} {plane.y(steps[0][1]):.1f}" + "".join(
            f"H{plane.x(x):.1f}V{plane.y(y):.1f}" for x, y in steps[1:]
        )
        parts.append(f'<path class="front" d="{path}"/>')
    taken: list[tuple[float, float, float, float]] = []
    for p in sorted(points, key=lambda one: (not one.front, -one.y)):
        if not (math.isfinite(p.x) and math.isfinite(p.y)):
            continue
        x, y = plane.x(p.x), plane.y(p.y)
        line = (
            f'<line class="interval" x1="{x:.1f}" x2="{x:.1f}" y1="{plane.y(p.low):.1f}" y2="{plane.y(p.high):.1f}"/>'
            if math.isfinite(p.low) and math.isfinite(p.high)
            else ""
        )
        mark = f' data-trial="{p.trial}"' if p.trial is not None else ""
        kind = "dot" if p.front or p.trial is None else "dot behind"
        parts.append(
            f'<g class="s{p.series % SERIES}"{mark}><title>{escape(one_line(p.label))}</title>{line}'
            f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{5 if p.front else 4}"/></g>'
        )
        if p.name:
            parts.append(_beside(p, x, y, width, taken))
    return _svg("chart", width, height, title, parts)


def best_so_far(points: Sequence[Point], x_name: str, y_name: str, title: str, maximise: bool = True) -> Markup:
    """Values in order of x, and as a line the best one up to each."""
    width, height = WIDTH, 300.0
    ordered = sorted((p for p in points if math.isfinite(p.y)), key=lambda p: p.x)
    plane = Plane(scale_for([p.x for p in ordered]), _close_scale([p.y for p in ordered]), width, height)
    parts, best, path = plane.frame(x_name, y_name), math.nan, ""
    for p in ordered:
        better = math.isnan(best) or (p.y > best if maximise else p.y < best)
        best = p.y if better else best
        path += f"M{plane.x(p.x):.1f} {plane.y(best):.1f}" if not path else f"H{plane.x(p.x):.1f}"
        path += f"V{plane.y(best):.1f}" if better else ""
        parts.append(
            f'<g class="s{p.series % SERIES}" data-trial="{p.trial}"><title>{escape(one_line(p.label))}</title>'
            f'<circle class="dot behind" cx="{plane.x(p.x):.1f}" cy="{plane.y(p.y):.1f}" r="4"/></g>'
        )
    if path:
        parts.append(f'<path class="curve s0" d="{path}H{width - plane.right:.1f}"/>')
    return _svg("chart", width, height, title, parts)


def bars(values: Sequence[tuple[str, float]], title: str) -> Markup:
    """Named horizontal bars of shares in [0, 1], in the given order."""
    width, row, name_width = WIDTH, 28.0, 280.0
    largest = max((value for _, value in values), default=0.0) or 1.0
    parts = []
    for i, (name, value) in enumerate(values):
        y, length = 4 + i * row, (width - name_width - 60) * max(0.0, value) / largest
        parts.append(
            f'<text class="label" x="{name_width - 12}" y="{y + 14:.1f}" text-anchor="end">'
            f"{escape(one_line(name, 36))}</text>"
            f'<rect class="bar s0" x="{name_width}" y="{y + 4:.1f}" width="{length:.1f}" height="12" rx="3"/>'
            f'<text class="tick" x="{name_width + length + 8:.1f}" y="{y + 14:.1f}">{100 * value:.0f}%</text>'
        )
    return _svg("chart", width, 8 + row * len(values), title, parts)


def parallel(axes: Sequence[Axis], numbers: Sequence[int], grades: Sequence[int], labels: Sequence[str]) -> Markup:
    """One line per trial over the axes, best trials drawn last; a missing value interrupts the line.

    `numbers`, `grades` (0 worst to GRADES - 1 best) and `labels` are by trial, as each axis's `places`.
    """
    width, height, top, bottom = max(WIDTH, 105.0 * len(axes)), 400.0, 62.0, 18.0
    gap = (width - 130) / max(1, len(axes) - 1)
    at = [60 + i * gap for i in range(len(axes))]
    parts = []
    for trial in sorted(range(len(numbers)), key=lambda i: grades[i]):
        path, pen = "", "M"
        for axis, x in zip(axes, at, strict=True):
            place = axis.places[trial]
            if math.isfinite(place):
                path += f"{pen}{x:.1f} {height - bottom - place * (height - top - bottom):.1f}"
                pen = "L"
            else:
                pen = "M"
        parts.append(
            f'<path class="strand g{grades[trial]}" data-trial="{numbers[trial]}" d="{path}">'
            f"<title>{escape(one_line(labels[trial]))}</title></path>"
        )
    for i, (axis, x) in enumerate(zip(axes, at, strict=True)):
        y = 18 + 18 * (i % 2)  # names on two levels, so that long neighbours do not meet
        parts.append(
            f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{height - bottom}"/>'
            f'<text class="label" x="{x:.1f}" y="{y}" text-anchor="middle">{escape(one_line(axis.name, 26))}</text>'
        )
        for place, text in axis.ticks:
            at_y = height - bottom - place * (height - top - bottom) + 4
            parts.append(f'<text class="tick halo" x="{x + 6:.1f}" y="{at_y:.1f}">{escape(one_line(text, 14))}</text>')
    return _svg("chart", width, height, "Parallel coordinates of all trials", parts)


def strands(
    series: Sequence[tuple[Sequence[float], Sequence[float]]],
    numbers: Sequence[int],
    grades: Sequence[int],
    labels: Sequence[str],
    title: str,
) -> Markup:
    """Values against steps, one line per trial, best trials drawn last. A trial with one value is a dot."""
    width, height = WIDTH, 320.0
    xs, ys = ([value for one in series for value in one[i] if math.isfinite(value)] for i in (0, 1))
    plane = Plane(scale_for(xs), _close_scale(ys), width, height)
    parts = plane.frame("step", title)
    for i in sorted(range(len(series)), key=lambda i: grades[i]):
        steps, values = series[i]
        at = [(plane.x(x), plane.y(y)) for x, y in zip(steps, values, strict=True) if math.isfinite(y)]
        if not at:
            continue
        mark, name = f'data-trial="{numbers[i]}"', f"<title>{escape(one_line(labels[i]))}</title>"
        path = "M" + " L".join(f"{x:.1f} {y:.1f}" for x, y in at)
        dot = f'<circle class="end g{grades[i]}" cx="{at[-1][0]:.1f}" cy="{at[-1][1]:.1f}" r="3"/>'
        parts.append(f'<g {mark}>{name}<path class="strand g{grades[i]}" {mark} d="{path}"/>{dot}</g>')
    return _svg("chart", width, height, f"{title} by step", parts)


def _close_scale(values: Sequence[float]) -> Scale:
    """A scale with round ends around the values; it starts at zero only where that costs no detail."""
    finite = [value for value in values if math.isfinite(value)]
    near = not finite or 0 <= min(finite) <= max(finite) - min(finite)
    return scale_for(finite, (0.0,) if near else ())


def _beside(p: Point, x: float, y: float, width: float, taken: list[tuple[float, float, float, float]]) -> str:
    """The point's name to its right (or left near the edge), moved up or down until it meets no other name."""
    text = one_line(p.name, 34)
    length = 6.4 * len(text)
    right = x + 10 + length < width - 4
    begin = x + 9 if right else x - 9 - length
    rest = -9.0 if p.front else 0.0  # above the line that leaves a point of the front
    for shift in (rest + one for one in (0, -14, 14, -28, 28, -42, 42)):
        box = (begin, y + shift - 9, begin + length, y + shift + 4)
        if all(box[2] < t[0] or box[0] > t[2] or box[3] < t[1] or box[1] > t[3] for t in taken):
            taken.append(box)
            anchor = "start" if right else "end"
            return (
                f'<text class="label halo" x="{x + 9 if right else x - 9:.1f}" y="{y + shift + 4:.1f}" '
                f'text-anchor="{anchor}">{escape(text)}</text>'
            )
    return ""


def _svg(kind: str, width: float, height: float, label: str, parts: Sequence[str]) -> Markup:
    return Markup(
        f'<svg class="{kind}" viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(one_line(label))}">'
        f"{''.join(parts)}</svg>"
    )
