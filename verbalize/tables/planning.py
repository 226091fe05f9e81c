"""From a table file to recipes: every cell of every data set, built and checked before anything runs."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recsys.errors import InputError
from verbalize.config import build, load_yaml, override, plain
from verbalize.pipeline import folder_of, stage_keys
from verbalize.recipe import Recipe
from verbalize.recipe_sections import BASELINES, LEARNED, SHUFFLED
from verbalize.tables.cells import CellConfig
from verbalize.tables.settings import Table, assignments
from verbalize.verbalizers.templates import TEMPLATES

OWN = ("name", "title", "tracking")
OWN_EVALUATION = ("templates", "baselines", "claims", "register", "untrained", "shuffled", "example_browser")
"""Keys that follow from the table: its arms, claims and register."""
SAME = ("source", "examples", "candidates")
SAME_SAMPLES = ("selection", "report", "test")
"""Keys in which the cells of a data set must agree, because they decide what is ranked."""


@dataclass(frozen=True)
class Planned:
    """A cell on a data set: one recipe, or one per seed where each seed trains its own recommender."""

    cell: CellConfig
    set: str
    tier: int
    recipes: tuple[Recipe, ...]

    @property
    def name(self) -> str:
        """`set.cell`."""
        return f"{self.set}.{self.cell.id}"

    @property
    def seeds(self) -> frozenset[int]:
        """The seeds of its learned texts."""
        return frozenset(seed for recipe in self.recipes for seed in recipe.seeds)

    def at(self, place: int) -> Recipe:
        """The recipe that meets another cell's recipe at `place`: that of the same seed, where each seed has one."""
        return self.recipes[min(place, len(self.recipes) - 1)]


def left_out(table: Table) -> dict[str, str]:
    """Data set -> why its cells are not carried out now: `only` names others, or it needs `data=PATH` and has none."""
    config, found = table.config, {}
    for name, one in config.sets.items():
        if name not in config.asked:
            found[name] = f"only {', '.join(config.only)} is asked for"
        elif one.given and config.data is None:
            found[name] = f"no folder of {name} was given: data=PATH" + (f" ({one.origin})" if one.origin else "")
    return found


def plan_table(table: Table, store: Path | None = None) -> list[Planned]:
    """Every cell in the order in which it runs: by tier, then by data set and place in the file.

    Without a `store` nothing is read but recipes, which checks the table; with one, data sets that are `left_out`
    have no cells, and a cell that learns from an earlier one's texts is told where they will lie. Raises InputError
    that names the cell.
    """
    absent = left_out(table) if store else {}
    found: dict[tuple[str, str], Planned] = {}
    for name in table.config.sets:
        for cell in table.config.cells:
            if name in cell.tiers and name not in absent:
                earlier = found[name, cell.learns_from] if cell.learns_from else None
                found[name, cell.id] = _planned(table, name, cell, earlier, store)
        mine = {cell: planned for (own, cell), planned in found.items() if own == name}
        _agree(list(mine.values()))
        for planned in mine.values():
            _check_crossings(planned, mine)
            _check_reference(planned, mine)
    return sorted(found.values(), key=lambda planned: planned.tier)


def keys_of(recipe: Recipe) -> dict[str, str]:
    """Stage -> key, from the configuration and the bytes of the data alone: nothing has to have run."""
    from verbalize.stages import stages_of

    return stage_keys(stages_of(recipe, ""))


def _planned(table: Table, name: str, cell: CellConfig, earlier: Planned | None, store: Path | None) -> Planned:
    try:
        first = _recipe(table, name, cell)
        paired = table.config.paired_seeds and first.recommender_training is not None and len(first.seeds) > 1
        recipes = []
        for place, seed in enumerate(first.seeds if paired else (None,)):
            extra: dict[str, Any] = {} if seed is None else {"seeds": [seed], "recommender_training.seed": seed}
            if earlier is not None:
                if first.recommender_training is None:
                    raise InputError("learns_from", "trains a recommender, and this cell has none", "give it one")
                extra["recommender_training.learned"] = _learned(earlier, place, store)
            recipes.append(_recipe(table, name, cell, extra, "" if seed is None else f".seed{seed}"))
        if cell.is_reader and first.recommender_training is None:
            raise InputError("no arms", "make a reader, which trains a recommender, and this one does not", "give arms")
    except InputError as error:
        raise type(error)(f"set {name}, cell {cell.id}: {error.value}", error.rule, error.remedy) from error
    return Planned(cell, name, cell.tiers[name], tuple(recipes))


def _learned(earlier: Planned, place: int, store: Path | None) -> str:
    """The folder in which the earlier cell's policy of this replicate will lie."""
    recipe = earlier.at(place)
    key = keys_of(recipe)["train"] if store else earlier.cell.id
    return str(folder_of(store or Path("store"), "train", key) / f"seed-{recipe.seeds[0]}")


def _recipe(
    table: Table, name: str, cell: CellConfig, extra: Mapping[str, Any] | None = None, suffix: str = ""
) -> Recipe:
    config, one = table.config, table.config.sets[name]
    own = [key for values in (one.overrides, config.overrides, cell.overrides) for key in assignments(values)]
    for key in own:
        word, _, rest = key.partition("=")[0].partition(".")
        if word in OWN or (word == "evaluation" and rest.partition(".")[0] in OWN_EVALUATION):
            raise InputError(
                key.partition("=")[0], "follows from the table", "change the cell's arms, or the table's own keys"
            )
    if one.given:
        own.append(f"source.path={config.data or 'data'}")
    values = override(load_yaml(table.recipe_path(name)), [*own, *assignments(extra or {})])
    arms = [arm for arm in cell.arms if arm not in (LEARNED, SHUFFLED)]
    identity = f"{config.name}.{name}.{cell.id}{suffix}"
    given = values.get("evaluation") or {}
    # A look of its own at test users for every cell, under a name that says which.
    look: dict[str, Any] = {"id": identity, "statement": f"Cell {cell.id} of {config.name} on {name}", "target": None}
    look["a"] = arms[0] if arms and LEARNED not in cell.arms else LEARNED
    values |= {"name": identity, "title": f"{config.name}: {name}, {cell.id}"}
    values["evaluation"] = {key: value for key, value in given.items() if key not in OWN_EVALUATION} | {
        "templates": [arm for arm in arms if arm in TEMPLATES],
        "baselines": [arm for arm in arms if arm in BASELINES],
        "shuffled": SHUFFLED in cell.arms,
        "untrained": [],
        "claims": [look] if given.get("split") == "test" else [],
        "register": config.register,
        "example_browser": 0,
    }
    return build(Recipe, values)


def _agree(planned: list[Planned]) -> None:
    """Refuse cells of one data set that would rank different things."""
    seen: dict[str, Any] = {}
    for one in planned:
        for recipe in one.recipes:
            values = plain(recipe)
            mine = {key: values[key] for key in SAME} | {"evaluation.split": recipe.evaluation.split}
            mine |= {f"sample.{key}": values["sample"][key] for key in SAME_SAMPLES}
            for key, value in mine.items():
                if seen.setdefault(key, value) != value:
                    raise InputError(
                        f"set {one.set}, cell {one.cell.id}: {key}",
                        "differs from that of the cells before it, so they would not rank the same",
                        "make it a data set of its own",
                    )


def _check_crossings(planned: Planned, others: Mapping[str, Planned]) -> None:
    """Refuse a crossing that is none: the texts would meet the very recommender they were written for."""
    for crossing in planned.cell.crossed:
        writer, reader = (others[cell or planned.cell.id] for cell in (crossing.texts, crossing.recommender))
        for place in range(len(planned.recipes)):
            own, read = reader_of(writer.at(place)), reader_of(reader.at(place), crossing.mode)
            if own == read:
                raise InputError(
                    f"set {planned.set}, cell {planned.cell.id}: crossing @{crossing.name(planned.cell.id)}",
                    f"has the texts of {writer.cell.id} read by their own recommender",
                    "name a cell whose recommender is trained in another way, or another mode",
                )


def reader_of(recipe: Recipe, mode: str | None = None) -> dict[str, Any]:
    """What makes a recipe's recommender the one it is, answering in `mode` (None: its own)."""
    settings = plain(recipe.recommender)
    training = recipe.recommender_training and plain(recipe.recommender_training)
    return {
        "recommender": settings | {"mode": mode or settings["mode"]},
        "candidates": plain(recipe.candidates),
        # Random actions are among the texts it learns from.
        "training": training and {**training, "actions": plain(recipe.policy.actions)},
    }


def _check_reference(planned: Planned, others: Mapping[str, Planned]) -> None:
    """Refuse two learned texts that share no seed: their difference would not be paired."""
    if planned.cell.reference is not None:
        other, arm = planned.cell.reference
        if arm == LEARNED and LEARNED in planned.cell.arms and not planned.seeds & others[other].seeds:
            raise InputError(
                f"set {planned.set}, cell {planned.cell.id}: compare_with {other}",
                f"has no seed in common: {sorted(planned.seeds)} and {sorted(others[other].seeds)}",
                "give both a seed",
            )
