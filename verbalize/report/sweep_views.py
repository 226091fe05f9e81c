"""From a `SweepTable` to the parts of its page: figures drawn, numbers formatted, trials graded."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from verbalize.report.figures import short
from verbalize.report.plots import GRADES, Axis, Point, bars, best_so_far, parallel, scatter, strands
from verbalize.report.sweep_final import final_part
from verbalize.report.trials import Objective, SweepTable, Trial

MOST_AXES = 9  # parameters in the parallel plot; the less important ones are in the table
MOST_CARDS = 3
TONES = {"complete": "", "pruned": "open", "failed": "bad", "lost": "open", "running": "open", "waiting": "open"}


def sweep_parts(table: SweepTable, final: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What the template's sweep section reads, under the single key `sweep`; `final` is final.json's contents."""
    first = table.objectives[0]
    grades = grades_of(table)
    best = {trial.number for trial in table.best}
    shown = table.params[:MOST_AXES]
    return {
        "sweep": {
            "name": table.name,
            "final": final_part(final) if final else None,
            "objectives": [f"{o.name} ({'more' if o.maximise else 'less'} is better)" for o in table.objectives],
            "cards": [_card(table, trial) for trial in ordered(table) if trial.number in best][:MOST_CARDS],
            "several": len(table.objectives) > 1,
            "best_so_far": _best_so_far(table, first) if table.complete else "",
            "importance": [
                (name, bars(sorted(shares.items(), key=lambda one: -one[1]), f"Importance of parameters for {name}"))
                for name, shares in table.importance.items()
                if shares
            ],
            "parallel": _parallel(table, shown, grades) if len(table.complete) > 1 and shown else "",
            "left_out": [name for name in table.params if name not in shown],
            "tradeoffs": [(f"{first.name} against {o.name}", _tradeoff(table, o, best)) for o in table.objectives[1:]]
            if table.complete
            else [],
            "learning": _learning(table, grades),
            "objective_names": [o.name for o in table.objectives],
            "params": table.params,
            "trials": [_row(table, trial, trial.number in best) for trial in ordered(table)],
            "failed": [{"number": t.number, "note": t.note} for t in table.trials if t.state == "failed"],
        }
    }


def ordered(table: SweepTable) -> list[Trial]:
    """Trials for reading: complete ones by the first objective, best first, then the others by number."""
    first = table.objectives[0]
    sign = -1 if first.maximise else 1
    return sorted(
        table.trials,
        key=lambda t: (t.state != "complete", sign * t.values.get(first.name, 0.0), t.number),
    )


def grades_of(table: SweepTable) -> dict[int, int]:
    """Trial -> 0 (worst fifth, or not complete) ... GRADES - 1 (best fifth), by rank on the first objective."""
    complete = [trial for trial in ordered(table) if trial.state == "complete"]
    grades = {trial.number: 0 for trial in table.trials}
    for rank, trial in enumerate(complete):
        grades[trial.number] = GRADES - 1 - rank * GRADES // len(complete)
    return grades


def axis_of(name: str, values: Sequence[Any], log: bool = False) -> Axis:
    """Values of a parameter (None where it was not drawn) -> positions in [0, 1] and tick labels.

    Numbers lie on a linear or logarithmic axis from their least to their largest, everything else on equal steps.

    >>> axis_of("rate", [0.01, 1.0, None, 0.1], log=True).places
    [0.0, 1.0, nan, 0.5]
    >>> axis_of("kind", ["b", "a", "b"]).ticks
    [(0.0, 'a'), (1.0, 'b')]
    """
    present = [value for value in values if value is not None]
    if present and all(isinstance(value, int | float) and not isinstance(value, bool) for value in present):
        scaled = [_scaled(value, log) for value in values]
        finite = [value for value in scaled if math.isfinite(value)]
        low, high = min(finite), max(finite)
        places = [(value - low) / (high - low) if high > low else value * 0 + 0.5 for value in scaled]
        whole = not log and all(isinstance(value, int) for value in present)
        middle = [(low + high) / 2] if high > low and not (whole and (low + high) % 2) else []
        ends = [low, *middle, high] if high > low else [low]
        ticks = [((end - low) / (high - low) if high > low else 0.5, _tick(10**end if log else end)) for end in ends]
        return Axis(name, places, ticks)
    levels = sorted({str(value) for value in present})
    at = {level: i / max(1, len(levels) - 1) if len(levels) > 1 else 0.5 for i, level in enumerate(levels)}
    return Axis(name, [math.nan if v is None else at[str(v)] for v in values], [(at[level], level) for level in levels])


def _scaled(value: float | None, log: bool) -> float:
    if value is None:
        return math.nan
    return math.log10(value) if log else float(value)


def _tick(value: float) -> str:
    return f"{value:.2g}" if 0 < abs(value) < 0.001 else short(float(f"{value:.3g}"))


def _number(value: float | None, objective: Objective) -> str:
    if value is None or not math.isfinite(value):
        return "–"
    text = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.4g}"
    return f"{text} {objective.unit}".rstrip().replace("-", "−")


def _said(value: Any) -> str:
    return "–" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _label(table: SweepTable, trial: Trial) -> str:
    values = ", ".join(f"{o.name} {_number(trial.values.get(o.name), o)}" for o in table.objectives)
    return f"Trial {trial.number}: {values if trial.values else trial.state}"


def _card(table: SweepTable, trial: Trial) -> dict[str, Any]:
    first, *others = table.objectives
    return {
        "trial": trial.number,
        "value": _number(trial.values[first.name], first),
        "name": first.name,
        "others": ", ".join(f"{o.name} {_number(trial.values[o.name], o)}" for o in others),
        "params": [(name, _said(trial.params[name])) for name in table.params if name in trial.params],
    }


def _row(table: SweepTable, trial: Trial, best: bool) -> dict[str, Any]:
    return {
        "number": trial.number,
        "state": trial.state,
        "tone": TONES[trial.state],
        "best": best,
        "values": [_number(trial.values.get(o.name), o) for o in table.objectives],
        "seconds": "–" if trial.seconds is None else f"{trial.seconds:,.0f} s",
        "params": [_said(trial.params.get(name)) for name in table.params],
    }


def _best_so_far(table: SweepTable, first: Objective) -> Markup:
    points = [Point(t.number, t.values[first.name], _label(table, t), trial=t.number, series=7) for t in table.complete]
    title = f"{first.name} of each trial, and the best so far"
    return best_so_far(points, "trial", f"{first.name} on validation", title, first.maximise)


def _tradeoff(table: SweepTable, other: Objective, best: set[int]) -> Markup:
    first = table.objectives[0]
    points = [
        Point(
            t.values[other.name],
            t.values[first.name],
            _label(table, t),
            series=0 if t.number in best else 7,
            name=f"Trial {t.number}" if t.number in best else "",
            front=t.number in best and len(table.objectives) == 2,
            trial=t.number,
        )
        for t in table.complete
    ]
    return scatter(points, other.name, f"{first.name} on validation", f"{first.name} against {other.name}")


def _parallel(table: SweepTable, shown: Sequence[str], grades: Mapping[int, int]) -> Markup:
    drawn = [t for t in table.trials if t.state in ("complete", "pruned")]
    axes = [axis_of(name, [t.params.get(name) for t in drawn], name in table.log_params) for name in shown]
    for o in reversed(table.objectives):
        axes.append(axis_of(f"{o.name} {'↑' if o.maximise else '↓'}", [t.values.get(o.name) for t in drawn]))
    numbers = [t.number for t in drawn]
    return parallel(axes, numbers, [grades[n] for n in numbers], [_label(table, t) for t in drawn])


def _learning(table: SweepTable, grades: Mapping[int, int]) -> Markup | str:
    told = [t for t in table.trials if t.intermediate]
    if not told:
        return ""
    series = [(sorted(t.intermediate), [t.intermediate[step] for step in sorted(t.intermediate)]) for t in told]
    numbers = [t.number for t in told]
    labels = [_label(table, t) for t in told]
    name = f"{table.objectives[0].name} on validation while training"
    return strands(series, numbers, [grades[n] for n in numbers], labels, name)
