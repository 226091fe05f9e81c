"""Figures for papers, as SVG and PDF, drawn by matplotlib (extra `figures`): the report's numbers, nothing new.

Text stays text in both formats, so it can be searched and edited; the same data gives the same bytes. Colours are those
of the report's light theme.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from recsys.errors import InputError
from recsys.storage import replacing
from verbalize.report.data import CURVE_KEY, ReportData
from verbalize.report.text import one_line
from verbalize.report.trials import SweepTable
from verbalize.report.views import tradeoff_rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Drawing = tuple[str, Callable[["Figure"], None], float]  # file stem, what to draw, height in inches
COLOURS = ("#1f6f78", "#c2622b", "#6552a8", "#9a7a10", "#b03a6a", "#3f7d2c", "#3b6cc0", "#777777")
FORMATS = ("svg", "pdf", "png")
USUAL = FORMATS[:2]
"""What papers take; pictures for a web page are asked for."""
_STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.grid": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "verbalize",
    "pdf.fonttype": 42,
    "text.parse_math": False,
}
_WIDTH = 5.5  # inches: the text width of the usual conference styles
_METADATA: Any = {"svg": {"Date": None}, "pdf": {"CreationDate": None, "ModDate": None}, "png": {"Software": None}}
_DOTS = 200  # per inch, of a png


def write_figures(data: ReportData, folder: Path, formats: Sequence[str] = USUAL) -> list[Path]:
    """arms, tradeoff, comparisons, slices and curves of a report, as far as it has them; returns the files."""
    return _write(_report_figures(data), folder, formats)


def write_sweep_figures(table: SweepTable, folder: Path, formats: Sequence[str] = USUAL) -> list[Path]:
    """best_so_far, importance and the trade-off of the first two objectives of a sweep."""
    return _write(_sweep_figures(table), folder, formats)


def check_formats(formats: Sequence[str]) -> None:
    """Raises InputError for an unknown format, and where there is nothing to draw with; for the start of long work."""
    for kind in formats:
        if kind not in FORMATS:
            raise InputError(f"figure format {kind!r}", f"is none of {FORMATS}", "choose among these")
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise InputError(
            "figures", "need matplotlib, which is not installed", "pip install 'verbalize[figures]', or --formats none"
        ) from error


def _write(figures: Iterator[Drawing], folder: Path, formats: Sequence[str]) -> list[Path]:
    check_formats(formats)
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    written = []
    with rc_context(_STYLE):
        for name, draw, height in figures:
            figure = Figure(figsize=(_WIDTH, height), layout="constrained")
            draw(figure)
            for kind in formats:
                path = folder / f"{name}.{kind}"
                with replacing(path) as temporary:
                    figure.savefig(temporary, format=kind, metadata=_METADATA[kind], dpi=_DOTS)
                written.append(path)
    return written


def _report_figures(data: ReportData) -> Iterator[Drawing]:
    main = data.arms.filter(pl.col("metric") == "recall@1").sort("value") if len(data.arms) else data.arms
    if len(main):
        yield "arms", partial(_arms, rows=main, learned=data.learned), 0.7 + 0.24 * len(main)
    rows = tradeoff_rows(data)
    if len(rows) > 1:
        yield "tradeoff", partial(_tradeoff, rows=rows, learned=data.learned), 3.2
    absolute = [shown for shown in data.comparisons if not shown.comparison.relative]
    if absolute:
        yield "comparisons", partial(_comparisons, shown=absolute), 0.7 + 0.24 * len(absolute)
    for name in data.slices["slice"].unique(maintain_order=True).to_list():
        part = data.slices.filter(pl.col("slice") == name)
        yield f"slice-{name.replace(' ', '-')}", partial(_slice, part=part), 1.1 + 0.14 * len(part)
    if names := _quantities(data):
        yield "curves", partial(_curves, curves=data.curves, names=names), 1.6 * math.ceil(len(names) / 3)


def _sweep_figures(table: SweepTable) -> Iterator[Drawing]:
    if table.complete:
        yield "best_so_far", partial(_best_so_far, table=table), 2.4
    for name, shares in table.importance.items():
        if shares:
            stem = f"importance-{name.replace('@', '-at-')}"
            yield stem, partial(_importance, shares=shares), 0.7 + 0.2 * len(shares)
    if table.complete and len(table.objectives) > 1:
        yield "sweep_tradeoff", partial(_sweep_tradeoff, table=table), 3.0


def _arms(figure: "Figure", rows: pl.DataFrame, learned: frozenset[str]) -> None:
    axes = figure.subplots()
    labels = [f"{r['verbalizer']} · {r['recommender']}" for r in rows.iter_rows(named=True)]
    colours = [COLOURS[0] if r["verbalizer"] in learned else COLOURS[7] for r in rows.iter_rows(named=True)]
    _intervals(axes, rows.to_dicts(), labels, colours)
    chances = set(rows["chance"].round(6).to_list())
    if len(chances) == 1:
        axes.axvline(chances.pop(), color="0.5", linewidth=0.6, linestyle=":")
        figure.supxlabel("Recall@1, 95% interval over users; dotted: chance", fontsize="medium")
    else:
        figure.supxlabel("Recall@1, 95% interval over users", fontsize="medium")


def _comparisons(figure: "Figure", shown: Sequence[Any]) -> None:
    axes = figure.subplots()
    rows = [{"value": s.comparison.value, "low": s.comparison.low, "high": s.comparison.high} for s in shown[::-1]]
    _intervals(axes, rows, [s.label for s in shown[::-1]], [COLOURS[0]] * len(rows))
    axes.axvline(0.0, color="0.5", linewidth=0.6, linestyle=":")
    figure.supxlabel("difference, 95% interval over users", fontsize="medium")


def _slice(figure: "Figure", part: pl.DataFrame) -> None:
    axes = figure.subplots()
    arms = part.select("verbalizer", "recommender").unique(maintain_order=True).rows()
    levels = part["level"].unique(maintain_order=True).to_list()[::-1]
    for place, (verbalizer, recommender) in enumerate(arms):
        mine = part.filter(pl.col("verbalizer") == verbalizer, pl.col("recommender") == recommender)
        ys = [levels.index(level) + 0.25 * ((len(arms) - 1) / 2 - place) for level in mine["level"]]
        colour = COLOURS[place % len(COLOURS)]
        axes.hlines(ys, mine["low"].to_list(), mine["high"].to_list(), color=colour, linewidth=1.4, alpha=0.6)
        axes.plot(mine["value"], ys, "o", color=colour, markersize=3, label=f"{verbalizer} · {recommender}")
    axes.set_yticks(range(len(levels)), [one_line(str(level), 48) for level in levels])
    axes.set_xlabel("Recall@1, 95% interval over users")
    figure.legend(loc="outside lower center", ncols=2, frameon=False)


def _intervals(axes: "Axes", rows: Sequence[Mapping[str, Any]], labels: Sequence[str], colours: Sequence[str]) -> None:
    """A dot and its interval per row, bottom to top."""
    for place, (row, colour) in enumerate(zip(rows, colours, strict=True)):
        if row["low"] is not None and row["high"] is not None:
            axes.plot([row["low"], row["high"]], [place, place], color=colour, linewidth=1.4, alpha=0.6)
        axes.plot([row["value"]], [place], "o", color=colour, markersize=3.5)
    axes.set_yticks(range(len(rows)), [one_line(label, 48) for label in labels])
    axes.set_ylim(-0.6, len(rows) - 0.4)


def _tradeoff(figure: "Figure", rows: Sequence[Mapping[str, Any]], learned: frozenset[str]) -> None:
    axes = figure.subplots()
    for row in rows:
        colour = COLOURS[0] if row["verbalizer"] in learned else COLOURS[7]
        if row["low"] is not None and row["high"] is not None:
            axes.plot([row["tokens"]] * 2, [row["low"], row["high"]], color=colour, linewidth=1.2, alpha=0.5)
        axes.plot([row["tokens"]], [row["value"]], "o", color=colour, markersize=4)
        axes.annotate(
            one_line(row["verbalizer"], 30), (row["tokens"], row["value"]), (4, 3), textcoords="offset points", size=7
        )
    best = [row for row in rows if row["front"]]
    axes.step([r["tokens"] for r in best], [r["value"] for r in best], "--", where="post", color=COLOURS[0], lw=0.8)
    axes.set_xlabel("tokens a text")
    axes.set_ylabel("Recall@1")


def _quantities(data: ReportData) -> list[str]:
    return list(dict.fromkeys(name for f in data.curves.values() for name in f.columns if name != CURVE_KEY))


def _curves(figure: "Figure", curves: Mapping[str, pl.DataFrame], names: Sequence[str]) -> None:
    grid = figure.subplots(math.ceil(len(names) / 3), 3, squeeze=False).flat
    for axes, name in zip(grid, names, strict=False):
        for place, (series, frame) in enumerate(curves.items()):
            if name in frame.columns:
                present = frame.drop_nulls(name)
                axes.plot(present[CURVE_KEY], present[name], color=COLOURS[place % 8], linewidth=0.9, label=series)
        axes.set_title(one_line(name, 30), size=8, loc="left")
    for axes in list(grid)[len(names) :]:
        axes.set_visible(False)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(labels)), frameon=False)


def _best_so_far(figure: "Figure", table: SweepTable) -> None:
    axes, first = figure.subplots(), table.objectives[0]
    done = sorted(table.complete, key=lambda trial: trial.number)
    numbers, values = [t.number for t in done], [t.values[first.name] for t in done]
    best = [(max if first.maximise else min)(values[: i + 1]) for i in range(len(values))]
    axes.plot(numbers, values, "o", color=COLOURS[7], markersize=2.5, alpha=0.6)
    axes.step(numbers, best, where="post", color=COLOURS[0], linewidth=1.2)
    axes.set_xlabel("trial")
    axes.set_ylabel(f"{first.name} on validation")


def _importance(figure: "Figure", shares: Mapping[str, float]) -> None:
    axes = figure.subplots()
    rows = sorted(shares.items(), key=lambda one: one[1])
    axes.barh([one_line(name, 48) for name, _ in rows], [share for _, share in rows], color=COLOURS[0], height=0.6)
    axes.set_xlabel("share of the variation between trials (fANOVA)")


def _sweep_tradeoff(figure: "Figure", table: SweepTable) -> None:
    axes, (first, other, *_) = figure.subplots(), table.objectives
    best = {trial.number for trial in table.best}
    for trial in table.complete:
        colour = COLOURS[0] if trial.number in best else COLOURS[7]
        axes.plot([trial.values[other.name]], [trial.values[first.name]], "o", color=colour, markersize=3.5)
    axes.set_xlabel(other.name)
    axes.set_ylabel(f"{first.name} on validation")
