"""A sweep's trials as plain data, checked: what a report of a sweep is made from.

`SweepTable` needs no optimiser: whoever ran the trials fills it; `report.optuna_trials` does so from an Optuna study.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import polars as pl

from recsys.errors import InputError
from verbalize.report.pareto import front

State = Literal["complete", "pruned", "failed", "lost", "running", "waiting"]
STATES: tuple[State, ...] = ("complete", "pruned", "failed", "lost", "running", "waiting")


@dataclass(frozen=True)
class Objective:
    """What is optimised: its name, unit for people ("" for none) and whether more is better."""

    name: str
    maximise: bool = True
    unit: str = ""


@dataclass(frozen=True)
class Trial:
    """One trial. A conditional parameter that was not drawn is absent from `params`.

    `values` by objective, only for a complete one; `intermediate` by training step; `note`: why a trial failed.
    A trial is lost when its worker was killed.
    """

    number: int
    state: State
    params: Mapping[str, Any] = field(default_factory=dict)
    values: Mapping[str, float] = field(default_factory=dict)
    seconds: float | None = None
    intermediate: Mapping[int, float] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True)
class SweepTable:
    """All trials of a sweep. `importance`: objective -> parameter -> share of the objective's variation (sums to 1 or
    less); `log_params`: parameters drawn on a logarithmic axis. Raises InputError for trials that contradict this.
    """

    name: str
    objectives: tuple[Objective, ...]
    trials: tuple[Trial, ...]
    importance: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    log_params: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        names = {objective.name for objective in self.objectives}
        if not names or len(names) != len(self.objectives):
            raise InputError(f"objectives of {self.name}", "need at least one, each with its own name", "name them")
        if len({trial.number for trial in self.trials}) != len(self.trials):
            raise InputError(f"trials of {self.name}", "have a number of their own each", "number them from 0")
        for trial in self.trials:
            if trial.state not in STATES:
                raise InputError(f"trial {trial.number} {trial.state!r}", f"is none of {STATES}", "use one of these")
            if trial.state == "complete" and set(trial.values) != names:
                raise InputError(
                    f"trial {trial.number} with values {sorted(trial.values)}",
                    f"a complete trial has one for each of {sorted(names)}",
                    "mark it failed, or give its values",
                )

    @property
    def complete(self) -> tuple[Trial, ...]:
        """Trials that came to their end."""
        return tuple(trial for trial in self.trials if trial.state == "complete")

    @property
    def params(self) -> tuple[str, ...]:
        """All parameters, the most important for the first objective first, then in order of appearance."""
        shares = self.importance.get(self.objectives[0].name, {})
        names = dict.fromkeys(name for trial in self.trials for name in trial.params)
        return tuple(sorted(names, key=lambda name: -shares.get(name, 0.0)))

    @property
    def best(self) -> tuple[Trial, ...]:
        """The Pareto front of the complete trials; with one objective, the best (several where they tie)."""
        points = [[trial.values[o.name] for o in self.objectives] for trial in self.complete]
        return tuple(self.complete[i] for i in front(points, [o.maximise for o in self.objectives]))


def trials_frame(table: SweepTable) -> pl.DataFrame:
    """One row per trial, for files: number, state, seconds, a column per objective, then one per parameter as text."""
    rows = [
        {
            "trial": trial.number,
            "state": trial.state,
            "seconds": trial.seconds,
            **{o.name: trial.values.get(o.name) for o in table.objectives},
            **{name: _cell(trial.params.get(name)) for name in table.params},
        }
        for trial in sorted(table.trials, key=lambda one: one.number)
    ]
    schema = {"trial": pl.Int64, "state": pl.String, "seconds": pl.Float64}
    schema |= {o.name: pl.Float64 for o in table.objectives} | dict.fromkeys(table.params, pl.String)
    return pl.DataFrame(rows, schema=schema)


def _cell(value: Any) -> str | None:
    return None if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
