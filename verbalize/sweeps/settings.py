"""A sweep's YAML file as frozen dataclasses: which recipe, which keys may vary, what is measured, how long.

Loading checks what needs no recipe; `verbalize.sweeps.space.check_space` checks the space against the recipe.
"""

import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from recsys.errors import InputError
from verbalize.config import build, load_yaml, override
from verbalize.report.claims import check_claim_id

if TYPE_CHECKING:
    from verbalize.recipe import Recipe

ARM = "arm"
"""A name in `space` that is no key of the recipe: which arm is measured is a choice like any other."""
COSTS = ("tokens", "seconds")


@dataclass(frozen=True)
class Parameter:
    """A range or a list of choices for one key.

    `when` names other parameters and the value or values of theirs that make this one count: {arm: ease}. It is not
    drawn otherwise. Choices may be any YAML values, lists included.
    """

    type: Literal["float", "int", "categorical"]
    low: float | None = None
    high: float | None = None
    log: bool = False
    step: float | None = None
    """Distance between values; `grid` needs it for ranges, and it excludes `log`."""
    choices: tuple[Any, ...] = ()
    when: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.type == "categorical":
            ranged = self.low is not None or self.high is not None or self.log or self.step is not None
            if len(self.choices) < 2 or ranged:
                _refuse("categorical", self, "has at least two `choices` and neither low, high, log nor step")
            return
        if self.choices or self.low is None or self.high is None or not self.low < self.high:
            _refuse(self.type, self, "has `low` below `high`, and no choices")
        if not (math.isfinite(self.low) and math.isfinite(self.high)):
            _refuse(self.type, self, "has finite ends")
        if self.log and (self.low <= 0 or self.step is not None):
            _refuse(self.type, self, "on a logarithmic scale lies above 0 and has no step")
        if self.step is not None and self.step <= 0:
            _refuse(self.type, self, "has a step above 0")
        numbers = [number for number in (self.low, self.high, self.step) if number is not None]
        if self.type == "int" and any(number != int(number) for number in numbers):
            _refuse("int", self, "has whole numbers")

    def allows(self, chosen: Mapping[str, Any]) -> bool:
        """Whether the other parameters' values make this one count."""
        return all(name in chosen and chosen[name] in wanted(value) for name, value in self.when.items())


def wanted(value: Any) -> list[Any]:
    """A `when` value as the list of values that it allows."""
    return value if isinstance(value, list) else [value]


@dataclass(frozen=True)
class ObjectiveConfig:
    """What a trial is judged by, on the validation users who select: `metric` of `arm`, higher is better.

    `arm`: `learned`, a template or constant of the recipe, a role (best_template, best_constant, ...), or a baseline.
    `costs` are minimised beside it, which makes the result a Pareto front: `tokens` per text under the recommender's
    tokenizer, `seconds` of all stages the configuration needs, as recorded when each was carried out.
    """

    metric: str = "mrr"
    arm: str = "learned"
    costs: tuple[Literal["tokens", "seconds"], ...] = ()


@dataclass(frozen=True)
class SamplerConfig:
    """`tpe` models good and bad trials apart and also serves several objectives; `grid` takes every combination."""

    kind: Literal["tpe", "random", "grid", "nsga2"] = "tpe"
    seed: int = 0
    startup: int = 10
    """`tpe`: trials drawn at random before it models anything."""
    population: int = 20
    """`nsga2`: trials of a generation."""


@dataclass(frozen=True)
class PrunerConfig:
    """Asynchronous successive halving (Li et al. 2020) on the validation metric that training reports.

    A trial that has trained for `min_steps`, then `min_steps` x `reduction`, ... goes on only if it is among the best
    1 / `reduction` of those that came so far. Only the first seed's curve prunes.
    """

    min_steps: int = 10
    reduction: int = 3

    def __post_init__(self) -> None:
        if self.min_steps < 1 or self.reduction < 2:
            raise InputError(f"pruner {self}", "needs min_steps >= 1 and reduction >= 2", "raise them")


@dataclass(frozen=True)
class BudgetConfig:
    """No trial begins beyond any of these; the ones running come to their end."""

    trials: int = 20
    seconds: float | None = None
    """Wall time of one command."""
    recommender_calls: int | None = None
    """Texts read against a slate, over all workers and commands; work shared between trials counts once."""

    def __post_init__(self) -> None:
        if self.trials < 1 or (self.seconds or 1) <= 0 or (self.recommender_calls or 1) <= 0:
            raise InputError(f"budget {self}", "must be above 0", "raise it or leave the key out")


@dataclass(frozen=True)
class FinalConfig:
    """`--final`: the best configuration against the recipe as it stands, both with seeds no trial has used."""

    seeds: tuple[int, ...] = (101, 102, 103)
    claim: str = "sweep.best_vs_default"
    target: float | None = 0.0

    def __post_init__(self) -> None:
        check_claim_id(self.claim)
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise InputError(f"final.seeds {list(self.seeds)}", "must be distinct and not empty", "e.g. [101, 102]")


@dataclass(frozen=True)
class SweepConfig:
    """A whole sweep file."""

    name: str
    recipe: str
    """Path of a recipe, from the sweep file's own folder."""
    space: dict[str, Parameter]
    """Dotted keys of the recipe, or `arm`."""
    overrides: dict[str, Any] = field(default_factory=dict)
    """Dotted keys of the recipe set for all trials; recipe and overrides together are "the default"."""
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    pruner: PrunerConfig | None = None
    budget: BudgetConfig = field(default_factory=BudgetConfig)
    storage: str | None = None
    """None is a journal file below the runs folder; `postgresql://...` serves many machines."""
    lost_after_s: float = 120.0
    """A worker on another machine that gives no sign of life for so long has lost its trial."""
    final: FinalConfig = field(default_factory=FinalConfig)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", self.name):
            raise InputError(f"name {self.name!r}", "names a folder: letters, digits, '.', '_' and '-'", "rename it")
        if not self.space:
            raise InputError("space", "needs at least one parameter", "add a dotted key of the recipe")
        if self.lost_after_s <= 0:
            raise InputError(f"lost_after_s {self.lost_after_s}", "must be above 0", "120 suits most networks")
        if self.pruner and self.objective.costs:
            raise InputError("pruner with objective.costs", "one number decides who is halved away", "drop one of them")


@dataclass(frozen=True)
class Sweep:
    """A sweep and the recipe it varies. `values`: the recipe's mapping with the sweep's overrides applied."""

    config: SweepConfig
    values: Mapping[str, Any]
    recipe_path: Path

    def arm(self, params: Mapping[str, Any]) -> str:
        """The arm measured under these parameters."""
        return str(params.get(ARM, self.config.objective.arm))

    def recipe(self, params: Mapping[str, Any] | None = None) -> "Recipe":
        """The recipe under these parameters, checked. Raises InputError as `load_recipe` does."""
        from verbalize.recipe import Recipe
        from verbalize.recipe_display import refuse_display

        recipe = build(Recipe, override(self.values, assignments(params or {})))
        refuse_display(recipe, f"sweep {self.config.name}")
        return recipe

    def command(self, params: Mapping[str, Any]) -> str:
        """The command line that runs this configuration on its own."""
        import shlex

        keys = assignments(self.config.overrides | dict(params))
        return " ".join(["verbalize", "run", str(self.recipe_path), *map(shlex.quote, keys)])


def load_sweep(path: Path | str, overrides: Iterable[str] = ()) -> Sweep:
    """Read a sweep file, `key=value` overrides of the file's own keys applied, and its recipe.

    Raises InputError naming the key, the rule and the remedy.
    """
    path = Path(path)
    config = build(SweepConfig, override(load_yaml(path), overrides))
    recipe = Path(os.path.normpath(path.parent / config.recipe))
    return Sweep(config, override(load_yaml(recipe), assignments(config.overrides)), recipe)


def assignments(values: Mapping[str, Any]) -> list[str]:
    """`key=value` overrides; JSON is YAML. `arm` is left out, which is no key of a recipe.

    >>> assignments({"train.steps": 3, "candidates.fields": ["title", "year"]})
    ['train.steps=3', 'candidates.fields=["title", "year"]']
    """
    import json

    return [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in values.items() if key != ARM]


def _refuse(kind: str, parameter: Parameter, rule: str) -> NoReturn:
    given = {name: value for name, value in vars(parameter).items() if value not in (None, (), {}, False)}
    raise InputError(f"{kind} parameter {given}", rule, "mend it in the sweep's space")


def keys_below(names: Iterable[str], prefix: str) -> list[str]:
    """The names that are `prefix` or lie below it.

    >>> keys_below(["train.steps", "trainer", "train"], "train")
    ['train.steps', 'train']
    """
    return [name for name in names if name == prefix or name.startswith(f"{prefix}.")]
