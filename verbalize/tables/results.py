"""Decisions of finished cells under the names of the table's arms, and which finalist stands for a name."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl

from recsys.errors import InputError
from recsys.storage import read_json, read_parquet
from verbalize.recipe import Recipe
from verbalize.recipe_sections import LEARNED
from verbalize.stages.evaluate import arm_of
from verbalize.stages.report import main_recommender
from verbalize.tables.names import parts_of
from verbalize.tables.run import Done, State

CHOOSES = "reciprocal_rank"
"""What chooses among finalists: MRR of the texts on the selection users, who chose the checkpoint too."""


def decisions_of_set(state: State, name: str) -> pl.DataFrame | None:
    """All decisions on a data set, the verbalizer renamed to the table's arm (`cell/arm`, `cell/arm@crossing`).

    Raises InputError when two cells did not rank the same slates.
    """
    evaluated = state.evaluated(name)
    if not evaluated:
        return None
    _same_slates(evaluated)
    done = [one for (own, _), one in state.done.items() if own == name]
    return pl.concat([part for one in done for part in (*_own(one), *_crossed(one))])


def tokens_of_set(state: State, name: str) -> dict[str, float]:
    """Arm -> mean tokens of its texts."""
    found: dict[str, list[float]] = {}
    for one in state.evaluated(name):
        for folders in one.folders:
            roles = roles_of(folders)
            table = read_parquet(folders["evaluate"] / "verbalizations.parquet")
            plain = table.with_columns(pl.col("verbalizer").str.replace("@.*$", ""))
            means = dict(plain.group_by("verbalizer").agg(pl.col("tokens").mean()).iter_rows())
            for arm in one.planned.cell.arms:
                if roles.get(arm, arm) in means:
                    found.setdefault(f"{one.planned.cell.id}/{arm}", []).append(means[roles.get(arm, arm)])
    return {arm: float(np.mean(values)) for arm, values in found.items()}


def roles_of(folders: Mapping[str, Path]) -> dict[str, str]:
    """The roles that a finished cell chose."""
    roles: dict[str, str] = read_json(folders["templates"] / "roles.json")
    return roles


def resolved(state: State, name: str, place: str) -> str:
    """An arm of a claim with the finalist's name replaced by the cell that stands for it. Raises InputError where a
    cell it needs has no result, saying why."""
    named, arm, crossing = parts_of(place)
    cells = state.table.config.candidates(named)
    owners = [state.table.config.crossings_of(cell)[crossing][0].id for cell in cells] if crossing else []
    for cell in (*cells, *owners):
        if (name, cell) not in state.done:
            raise InputError(f"arm {place}", state.why_not(name, cell), "carry it out")
    chosen = cells[0] if len(cells) == 1 else max(cells, key=lambda cell: selection_mrr(state.done[name, cell]))
    return f"{chosen}/{arm}" + (f"@{crossing}" if crossing else "")


def selection_mrr(done: Done) -> float:
    """MRR of a cell's learned texts on the selection users, at the chosen checkpoints, mean over seeds."""
    values = []
    for recipe, folders in zip(done.planned.recipes, done.folders, strict=True):
        for seed in recipe.seeds:
            folder = folders["train"] / f"seed-{seed}"
            best = read_json(folder / "result.json")["best_step"]
            judged = read_parquet(folder / "validation" / f"step-{best:05d}.parquet")
            values.append(float(np.mean(judged[CHOOSES].to_numpy())))
    return float(np.mean(values))


def _own(done: Done) -> list[pl.DataFrame]:
    """The decisions of a cell's arms; a reader has none."""
    parts = []
    for recipe, folders in zip(done.planned.recipes, done.folders, strict=True) if done.planned.cell.arms else ():
        decisions, roles = read_parquet(folders["evaluate"] / "decisions.parquet"), roles_of(folders)
        main = main_recommender(decisions)
        for arm in done.planned.cell.arms:
            verbalizer, recommender = arm_of(arm, roles, main, recipe.evaluation.baselines)
            mine = decisions.filter(pl.col("verbalizer") == verbalizer, pl.col("recommender") == recommender)
            parts.append(_named(mine, done, recipe, f"{done.planned.cell.id}/{arm}"))
    return parts


def _crossed(done: Done) -> list[pl.DataFrame]:
    """The decisions of the crossings that a cell lists."""
    parts = []
    for recipe, crossed in zip(done.planned.recipes, done.crossed, strict=True):
        for (cell, reader), folder in crossed.items():
            read = read_parquet(folder / "decisions.parquet")
            for arm in read["verbalizer"].unique(maintain_order=True):
                mine = read.filter(pl.col("verbalizer") == arm)
                parts.append(_named(mine, done, recipe, f"{cell}/{arm}@{reader}"))
    return parts


def _named(decisions: pl.DataFrame, done: Done, recipe: Recipe, name: str) -> pl.DataFrame:
    """Under the table's name. Where each seed has its own recommender, even a template's decisions are a seed's."""
    renamed = decisions.with_columns(verbalizer=pl.lit(name))
    return renamed if len(done.planned.recipes) == 1 else renamed.with_columns(seed=pl.lit(recipe.seeds[0], pl.Int64))


def _same_slates(done: list[Done]) -> None:
    hashes: dict[str, str] = {}
    for one in done:
        for folders in one.folders:
            facts = read_json(folders["evaluate"] / "done.json")["facts"]
            hashes.setdefault(facts["audits"]["slates_sha256"], one.planned.cell.id)
    if len(hashes) > 1:
        raise InputError(
            f"cells {', '.join(hashes.values())} of set {done[0].planned.set}",
            "ranked different slates, so their values do not compare",
            "make them data sets of their own",
        )


def learned_arms(state: State, name: str) -> frozenset[str]:
    """The arms whose texts were learned."""
    names = [f"{cell}/{LEARNED}" for own, cell in state.done if own == name]
    readers = [f"{cell}/{LEARNED}@{reader}" for own, cell in state.done for reader in readers_of(state, own, cell)]
    return frozenset([*names, *readers])


def readers_of(state: State, name: str, cell: str) -> list[str]:
    """Who else has read a finished cell's texts so far."""
    crossings = state.table.config.crossings_of(cell)
    return [reader for reader, (owner, _) in crossings.items() if (name, owner.id) in state.done]
