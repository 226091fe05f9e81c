"""From a sweep's settings to Optuna's samplers, pruners and distributions.

Every trial has a sampler of its own, seeded by the sweep's seed and the trial's number: a sweep that is stopped and
taken up again proposes what it would have proposed, and two workers never draw the same numbers. What a sampler knows
of other trials it reads from the storage.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from recsys.seeding import stable_hash
from verbalize.sweeps.settings import Parameter, Sweep
from verbalize.sweeps.space import draw, grid


def make_sampler(sweep: Sweep, admitted_place: Callable[[FrozenTrial], int]) -> optuna.samplers.BaseSampler:
    """The sampler as configured. `admitted_place(trial)`: its place among the trials of the budget, for `grid`."""
    config = sweep.config.sampler
    if config.kind == "grid":
        return GridPoints(grid(sweep.config.space), admitted_place)

    def make(number: int) -> optuna.samplers.BaseSampler:
        seed = stable_hash("sweep", config.seed, number) % 2**32
        if config.kind == "random":
            return optuna.samplers.RandomSampler(seed=seed)
        if config.kind == "nsga2":
            return optuna.samplers.NSGAIISampler(population_size=config.population, seed=seed)
        return optuna.samplers.TPESampler(n_startup_trials=config.startup, seed=seed)

    return SeededByTrial(make)


def make_pruner(sweep: Sweep) -> optuna.pruners.BasePruner:
    """Successive halving, or none."""
    config = sweep.config.pruner
    if config is None:
        return optuna.pruners.NopPruner()
    return optuna.pruners.SuccessiveHalvingPruner(min_resource=config.min_steps, reduction_factor=config.reduction)


def suggest(trial: optuna.Trial, space: Mapping[str, Parameter]) -> dict[str, Any]:
    """The trial's configuration: drawn now, or as it was drawn when the trial is one taken over."""

    def pick(name: str, parameter: Parameter) -> Any:
        if parameter.type == "categorical":
            label = trial.suggest_categorical(name, [label_of(choice) for choice in parameter.choices])
            return next(choice for choice in parameter.choices if label_of(choice) == label)
        assert parameter.low is not None and parameter.high is not None
        if parameter.type == "int":
            step = 1 if parameter.step is None else int(parameter.step)
            return trial.suggest_int(name, int(parameter.low), int(parameter.high), log=parameter.log, step=step)
        return trial.suggest_float(name, parameter.low, parameter.high, log=parameter.log, step=parameter.step)

    return draw(space, pick)


def chosen(trial: FrozenTrial, space: Mapping[str, Parameter]) -> dict[str, Any]:
    """A finished trial's configuration in the sweep's own values: lists again where choices are lists."""
    values = dict(trial.params)
    for name, parameter in space.items():
        if name in values and parameter.type == "categorical":
            values[name] = next(choice for choice in parameter.choices if label_of(choice) == values[name])
    return values


def label_of(choice: Any) -> Any:
    """A choice as Optuna stores it: scalars as they are, lists and mappings as JSON.

    >>> label_of(["title", "year"]), label_of(3)
    ('["title", "year"]', 3)
    """
    return choice if choice is None or isinstance(choice, str | int | float | bool) else json.dumps(choice)


class SeededByTrial(optuna.samplers.BaseSampler):
    """Passes each trial to a sampler made for its number; a trial that was taken over keeps what it had drawn."""

    def __init__(self, make: Callable[[int], optuna.samplers.BaseSampler]) -> None:
        self._make = make
        self._number = -1
        self._sampler: optuna.samplers.BaseSampler | None = None

    def _of(self, trial: FrozenTrial) -> optuna.samplers.BaseSampler:
        if self._sampler is None or trial.number != self._number:
            self._number, self._sampler = trial.number, self._make(trial.number)
        return self._sampler

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        self._of(trial).before_trial(study, trial)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._of(trial).infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._of(trial).sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._of(trial).sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        self._of(trial).after_trial(study, trial, state, values)


class GridPoints(optuna.samplers.BaseSampler):
    """The grid's points by the trial's place in the budget. Optuna's own grid knows no conditions and may visit a point
    twice when several workers ask at once."""

    def __init__(self, points: Sequence[Mapping[str, Any]], place: Callable[[FrozenTrial], int]) -> None:
        self._points, self._place = points, place

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return {}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return label_of(self._points[self._place(trial) % len(self._points)][param_name])
