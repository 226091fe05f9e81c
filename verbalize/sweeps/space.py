"""What a sweep may draw: an order in which conditions are known, the corners, the grid, and the check of all of it.

A space is checked before anything runs: each key against the recipe, each end and choice by building a recipe with it
(under the choices that make it count), then seeded draws of whole configurations, because some rules join two keys.
"""

import itertools
from collections.abc import Callable, Mapping
from typing import Any

from recsys.errors import InputError
from recsys.seeding import rng
from verbalize.sweeps.settings import ARM, Parameter, Sweep, keys_below, wanted

FIXED = {
    "name": "names the run",
    "title": "changes no result",
    "licence": "changes no result",
    "source": "is the data",
    "examples": "decides which examples and slates are ranked",
    "sample.selection": "decides which examples are ranked",
    "sample.report": "decides which users select and which report",
    "sample.test": "decides which examples are ranked",
    "reward.slates": "decides which slates are ranked",
    "evaluation": "decides what is looked at",
    "tracking": "changes no result",
    "seeds": "is luck, not a configuration",
}
"""Keys a sweep may not vary: trials would be judged on different things, or on nothing that matters."""
FREE = ("examples.history_max",)
"""The exception: how much of a history is shown moves neither targets nor slates (but for `retrieved` slates)."""
DRAWS = 64
GRID_LIMIT = 100_000

Pick = Callable[[str, Parameter], Any]


def ordered(space: Mapping[str, Parameter]) -> list[str]:
    """Names with every condition's name before it, otherwise as given. InputError for unknown names and circles."""
    done: list[str] = []
    left = list(space)
    for name, parameter in space.items():
        for other, values in parameter.when.items():
            if other not in space:
                raise InputError(
                    f"space.{name}.when.{other}", "names no parameter of the space", f"known: {', '.join(space)}"
                )
            never = [value for value in wanted(values) if not _possible(space[other], value)]
            if never:
                raise InputError(f"space.{name}.when.{other} = {never[0]!r}", "is never drawn", "mend the value")
    while left:
        ready = [name for name in left if all(other in done for other in space[name].when)]
        if not ready:
            raise InputError(f"space {left}", "has conditions that go round in a circle", "remove one of them")
        done.append(ready[0])
        left.remove(ready[0])
    return done


def draw(space: Mapping[str, Parameter], pick: Pick) -> dict[str, Any]:
    """One configuration: `pick` is asked for each parameter that counts, conditions first."""
    chosen: dict[str, Any] = {}
    for name in ordered(space):
        if space[name].allows(chosen):
            chosen[name] = pick(name, space[name])
    return chosen


def ends(parameter: Parameter) -> list[Any]:
    """All choices, or both ends of the range, in the parameter's own type."""
    if parameter.type == "categorical":
        return list(parameter.choices)
    kind = int if parameter.type == "int" else float
    assert parameter.low is not None and parameter.high is not None
    return [kind(parameter.low), kind(parameter.high)]


def random_value(parameter: Parameter, generator: Any) -> Any:
    """A value drawn uniformly (of a logarithmic range: uniformly in the logarithm)."""
    import numpy as np

    options = ends(parameter)
    if parameter.type == "categorical":
        return options[int(generator.integers(len(options)))]
    low, high = options
    if parameter.step is not None:
        return type(low)(low + parameter.step * int(generator.integers(int((high - low) / parameter.step) + 1)))
    if parameter.log:
        value = float(np.exp(generator.uniform(np.log(low), np.log(high))))
        return min(high, max(low, round(value) if parameter.type == "int" else value))
    return int(generator.integers(low, high + 1)) if parameter.type == "int" else float(generator.uniform(low, high))


def grid(space: Mapping[str, Parameter]) -> list[dict[str, Any]]:
    """Every combination, conditions respected. InputError for ranges without a step and beyond GRID_LIMIT points."""
    points: list[dict[str, Any]] = [{}]
    for name in ordered(space):
        parameter = space[name]
        values = _grid_values(name, parameter)
        points = [
            {**point, name: value} if counts else point
            for point in points
            for counts in (parameter.allows(point),)
            for value in (values if counts else [None])
        ]
        if len(points) > GRID_LIMIT:
            raise InputError("the grid of space", f"has more than {GRID_LIMIT} points", "use sampler.kind tpe")
    return points


def check_space(sweep: Sweep) -> None:
    """Refuse every key that a recipe does not have or that must stay, and every value that no recipe can be built with.

    Costs milliseconds per parameter; nothing is run.
    """
    space, config = sweep.config.space, sweep.config
    recipe = sweep.recipe()
    for prefix, why in FIXED.items():
        for name in keys_below(space, prefix):
            if name not in FREE:
                raise InputError(
                    f"space.{name}", f"{prefix} {why}, so it is the same for all trials", "set it in the recipe"
                )
    if recipe.examples.slate.policy == "retrieved" and "examples.history_max" in space:
        raise InputError(
            "space.examples.history_max", "`retrieved` slates are drawn near the history shown", "leave it fixed"
        )
    for name, parameter in space.items():
        for value in ends(parameter):
            _buildable(sweep, _with(space, name, value), f"space.{name} = {value!r}")
    for number in range(DRAWS):
        generator = rng("space", config.name, number)
        params = draw(space, lambda _, parameter, generator=generator: random_value(parameter, generator))  # type: ignore[misc]
        _buildable(sweep, params, f"space: {params}")
    if config.sampler.kind == "grid":
        grid(space)
    _check_arms(sweep, recipe)


def _check_arms(sweep: Sweep, recipe: Any) -> None:
    from recsys.metrics import expression
    from verbalize.sweeps.measure import LEARNED_METRICS, known_arms

    config = sweep.config
    expression(config.objective.metric)
    varied = ARM in config.space
    arms = [*config.space[ARM].choices] if varied else [config.objective.arm]
    for arm in arms:
        if arm not in known_arms(recipe):
            raise InputError(
                f"{f'space.{ARM}' if varied else 'objective.arm'} {arm!r}",
                "is no arm of the recipe",
                f"known: {', '.join(known_arms(recipe))}",
            )
    if "learned" in arms and config.objective.metric not in LEARNED_METRICS:
        raise InputError(
            f"objective.metric {config.objective.metric!r} of the learned arm",
            f"training records {' and '.join(LEARNED_METRICS)}",
            "choose one of these",
        )
    if config.pruner and set(arms) != {"learned"}:
        raise InputError(f"pruner with arm {arms}", "only training reports on its way", "leave the pruner out")
    used = set(recipe.seeds) & set(config.final.seeds)
    if used:
        raise InputError(f"final.seeds {sorted(used)}", "must be seeds that no trial used", "choose others")


def _with(space: Mapping[str, Parameter], name: str, value: Any) -> dict[str, Any]:
    """A configuration in which `name` counts and has this value; the others have their first end or what it needs."""
    forced = {name: value}
    queue = [name]
    while queue:
        for other, values in space[queue.pop()].when.items():
            forced.setdefault(other, wanted(values)[0])
            queue.append(other)
    return draw(space, lambda key, parameter: forced.get(key, ends(parameter)[0]))


def _buildable(sweep: Sweep, params: Mapping[str, Any], where: str) -> None:
    try:
        sweep.recipe(params)
    except InputError as error:
        raise InputError(where, f"{error.value}: {error.rule}", error.remedy) from error


def _possible(parameter: Parameter, value: Any) -> bool:
    if parameter.type == "categorical":
        return value in parameter.choices
    low, high = ends(parameter)
    return isinstance(value, int | float) and low <= value <= high


def _grid_values(name: str, parameter: Parameter) -> list[Any]:
    if parameter.type == "categorical":
        return list(parameter.choices)
    step = parameter.step or (1 if parameter.type == "int" and not parameter.log else None)
    if step is None:
        raise InputError(f"space.{name}", "a grid needs the step of a range", "give `step`, or categorical choices")
    low, high = ends(parameter)
    return [
        type(low)(low + step * place)
        for place in itertools.takewhile(lambda k: low + step * k <= high + 1e-9 * step, itertools.count())
    ]
