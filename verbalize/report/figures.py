"""Figures as inline SVG, drawn by a few small functions: intervals on a shared scale, bars, and learning curves.

Horizontal positions of marks are percentages, so a mark stretches with its table cell while dots stay round. Colours
come from CSS classes (`s0`, `s1`, ...), so one figure serves dark and light. No style attributes: the content-security
policy forbids them.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from verbalize.report.text import one_line

SERIES = 8  # number of distinguishable colours in report.css


@dataclass(frozen=True)
class Scale:
    """Maps [low, high] to percentages of a mark's width, 2% kept free on either side."""

    low: float
    high: float

    def percent(self, value: float) -> str:
        """Position of a value, clipped to the scale.

        >>> Scale(0, 1).percent(0.5), Scale(0, 1).percent(7)
        ('50.00%', '98.00%')
        """
        share = (value - self.low) / (self.high - self.low)
        return f"{2 + 96 * min(1.0, max(0.0, share)):.2f}%"


@dataclass(frozen=True)
class Mark:
    """A value with its interval; `series` chooses the colour, `label` is read out and shown on hover."""

    value: float
    low: float
    high: float
    series: int = 0
    label: str = ""


def scale_for(numbers: Sequence[float], include: Sequence[float] = (0.0,)) -> Scale:
    """The smallest scale with round ends that holds every finite number and `include`."""
    finite = [x for x in (*numbers, *include) if math.isfinite(x)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
    step = nice_step(high - low or abs(high) or 1.0)
    low, high = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
    return Scale(low, high if high > low else low + step)


def nice_step(span: float, pieces: int = 4) -> float:
    """1, 2 or 5 times a power of ten, so that about `pieces` of them make up `span`.

    >>> nice_step(0.4), nice_step(80.0)
    (0.1, 20.0)
    """
    raw = span / pieces
    power = 10.0 ** math.floor(math.log10(raw))
    return next(m * power for m in (1.0, 2.0, 5.0, 10.0) if m * power >= raw * 0.999)


def interval_marks(marks: Sequence[Mark], scale: Scale, reference: float | None = None) -> Markup:
    """One row: a dot with its interval per mark, stacked; a hairline at `reference` (chance, or no difference)."""
    height = 8 + 14 * len(marks)
    parts = []
    if reference is not None and scale.low <= reference <= scale.high:
        x = scale.percent(reference)
        parts.append(f'<line class="reference" x1="{x}" x2="{x}" y1="0" y2="{height}"/>')
    for i, mark in enumerate(marks):
        if not math.isfinite(mark.value):
            continue
        y, low, high = 11 + 14 * i, mark.low, mark.high
        interval = math.isfinite(low) and math.isfinite(high)
        line = (
            f'<line class="interval" x1="{scale.percent(low)}" x2="{scale.percent(high)}" y1="{y}" y2="{y}"/>'
            if interval
            else ""
        )
        parts.append(
            f'<g class="s{mark.series % SERIES}"><title>{escape(one_line(mark.label))}</title>{line}'
            f'<circle class="dot" cx="{scale.percent(mark.value)}" cy="{y}" r="4.5"/></g>'
        )
    return Markup(_svg("mark", "100%", height, "; ".join(m.label for m in marks), "".join(parts)))


def bar(value: float, largest: float, label: str = "") -> Markup:
    """A thin bar of length value / largest, flush right below its number."""
    share = 0.0 if largest <= 0 or not math.isfinite(value) else 100 * min(1.0, max(0.0, value / largest))
    return Markup(
        _svg(
            "mark",
            "100%",
            8,
            label,
            f'<rect class="bar" x="{100 - share:.1f}%" y="2" height="4" rx="2" width="{share:.1f}%"/>',
        )
    )


def axis(scale: Scale, reference: float | None = None, reference_label: str = "") -> Markup:
    """Tick labels for a column of marks, about five; the reference's own name is put below them."""
    step = nice_step(scale.high - scale.low)
    ticks = [scale.low + i * step for i in range(round((scale.high - scale.low) / step) + 1)]
    parts = []
    for tick in ticks:
        parts.append(f'<text class="tick" x="{scale.percent(tick)}" y="11" text-anchor="middle">{short(tick)}</text>')
    height = 16
    if reference is not None and reference_label and scale.low <= reference <= scale.high:
        height = 30
        parts.append(
            f'<text class="tick named" x="{scale.percent(reference)}" y="25" text-anchor="middle">'
            f"{escape(reference_label)}</text>"
        )
    return Markup(_svg("mark axis", "100%", height, "scale", "".join(parts), hidden=True))


def curves(series: Mapping[str, tuple[Sequence[float], Sequence[float]]], title: str) -> Markup:
    """One quantity against training steps, a line per series: name -> (steps, values). Non-finite values leave gaps."""
    width, height, left, bottom, top = 340.0, 190.0, 46.0, 24.0, 10.0
    xs = [x for steps, _ in series.values() for x in steps]
    ys = [y for _, values in series.values() for y in values if math.isfinite(y)]
    span = max(ys) - min(ys) if ys else 0.0
    y_scale = scale_for(ys, (0.0,) if ys and 0 <= min(ys) <= span else ())
    x_low, x_high = (min(xs), max(xs)) if xs else (0.0, 1.0)
    x_high = x_high if x_high > x_low else x_low + 1

    def place(x: float, y: float) -> tuple[float, float]:
        share = (y - y_scale.low) / (y_scale.high - y_scale.low)
        across = (x - x_low) / (x_high - x_low)
        return left + across * (width - left - 8), height - bottom - share * (height - bottom - top)

    parts = []
    step = nice_step(y_scale.high - y_scale.low)
    for i in range(round((y_scale.high - y_scale.low) / step) + 1):
        y = place(x_low, y_scale.low + i * step)[1]
        parts.append(
            f'<line class="grid" x1="{left}" x2="{width - 8}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text class="tick" x="{left - 7}" y="{y + 4:.1f}" text-anchor="end">'
            f"{short(y_scale.low + i * step)}</text>"
        )
    parts.append(
        f'<text class="tick" x="{left}" y="{height - 6}">{short(x_low)}</text>'
        f'<text class="tick" x="{width - 8}" y="{height - 6}" text-anchor="end">step {short(x_high)}</text>'
    )
    for i, (name, (steps, values)) in enumerate(series.items()):
        path, pen = [], "M"
        for x, y in zip(steps, values, strict=True):
            if not math.isfinite(y):
                pen = "M"
                continue
            path.append(f"{pen}{place(x, y)[0]:.1f} {place(x, y)[1]:.1f}")
            pen = "L"
        parts.append(
            f'<path class="curve s{i % SERIES}" d="{" ".join(path)}"><title>{escape(one_line(name))}</title></path>'
        )
    return Markup(_svg("chart", None, height, f"{title} by training step", "".join(parts), box=(width, height)))


def short(value: float) -> str:
    """A tick's label: few digits, typographic minus.

    >>> short(0.30000000000000004), short(-0.05), short(1200.0)
    ('0.3', '−0.05', '1,200')
    """
    text = f"{value:,.0f}" if abs(value) >= 100 else f"{round(value, 12):.3g}"
    return text.replace("-", "−")


def _svg(
    kind: str,
    width: str | None,
    height: float,
    label: str,
    body: str,
    hidden: bool = False,
    box: tuple[float, float] | None = None,
) -> str:
    size = f'viewBox="0 0 {box[0]:g} {box[1]:g}"' if box else f'width="{width}" height="{height:g}"'
    access = 'aria-hidden="true"' if hidden else f'role="img" aria-label="{escape(one_line(label))}"'
    return f'<svg class="{kind}" {size} {access}>{body}</svg>'
