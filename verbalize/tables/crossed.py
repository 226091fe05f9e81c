"""Finished texts before another reader: another cell's recommender, or the same one answering in another way.

The texts are those that the writing cell's evaluation wrote for its examples; only the ranking is new. Read are the
learned text and what its gain is measured against, not every arm: rankings are what a table costs. It is a stage behind
`evaluate`, so it resumes, and is shared, like any other.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from recsys.storage import read_parquet, write_parquet
from verbalize.config import plain
from verbalize.pipeline import Context, Progress, Stage, run_stages
from verbalize.recipe import Recipe
from verbalize.recipe_display import refuse_display
from verbalize.recipe_sections import LEARNED
from verbalize.stages import samples, stages_of
from verbalize.stages.ranking import Texts, rank
from verbalize.stages.recommender import identity, open_recommender, own_facts
from verbalize.stages.templates import load_roles
from verbalize.tables.cells import CellConfig

STAGE = "crossed"


@dataclass(frozen=True)
class Side:
    """A finished cell: who wrote, or who reads."""

    cell: CellConfig
    recipe: Recipe
    folders: Mapping[str, Path]


def cross(
    writer: Side,
    reader: Side,
    mode: str | None,
    store: Path,
    command: str,
    progress: Progress,
    limit: int | None = None,
) -> Path:
    """The folder of decisions.parquet, whose verbalizers are the writer's `crossed_arms`, read by the reader's
    recommender in `mode` (None: its own) for the first `limit` examples (None: all).
    """
    refuse_display(writer.recipe, f"crossing of cell {writer.cell.id}")
    if mode is not None:
        recommender = replace(reader.recipe.recommender, mode=mode)
        reader = replace(reader, recipe=replace(reader.recipe, recommender=recommender))
    before = stages_of(writer.recipe, command)
    before = before[: [stage.name for stage in before].index("evaluate") + 1]
    config: dict[str, Any] = {
        "arms": writer.cell.crossed_arms,
        "recommender": identity(reader.recipe.recommender),
        "candidates": plain(reader.recipe.candidates),
        "adapter": reader.folders["recommender"].name if "recommender" in reader.folders else None,
    }
    if limit is not None:
        config["examples"] = limit
    needs = tuple(stage.name for stage in before)
    last = Stage(STAGE, lambda context: _run(writer, reader, limit, context), config, needs)
    return run_stages([*before, last], store, progress)[STAGE]


def _run(writer: Side, reader: Side, limit: int | None, context: Context) -> Mapping[str, Any]:
    recipe, arms = writer.recipe, writer.cell.crossed_arms
    _, report = samples.validation_samples(recipe, context.inputs["examples"])
    testing = recipe.evaluation.split == "test"
    examples = samples.load_examples(context.inputs["examples"], "test", recipe.sample.test) if testing else report
    examples = examples if limit is None else examples.head(limit)
    slates = None if testing else samples.load_slates(context.inputs["examples"], examples)
    recommender = open_recommender(reader.recipe, reader.folders)
    texts = written_texts(recipe, arms, context, examples)
    decisions, _ = rank(context, recommender, examples, texts, slates, context.folder / "parts")
    write_parquet(decisions, context.folder / "decisions.parquet")
    return {"recommender": recommender.name, "arms": arms, **own_facts(recommender)}


def written_texts(recipe: Recipe, arms: list[str], context: Context, examples: pl.DataFrame) -> Texts:
    """(arm, seed) -> the texts that the evaluation wrote, in the examples' order."""
    roles = load_roles(context)
    table = read_parquet(context.inputs["evaluate"] / "verbalizations.parquet").select(
        "example_id", "verbalizer", "text"
    )
    found: Texts = {}
    for arm in arms:
        for place, seed in enumerate(recipe.seeds if arm == LEARNED else (0,)):
            name = f"{arm}@{seed}" if place else roles.get(arm, arm)  # the first seed bears the arm's plain name
            mine = table.filter(pl.col("verbalizer") == name)
            joined = examples.select("example_id").join(mine, on="example_id", how="left", maintain_order="left")
            found[arm, seed] = joined["text"].to_list()
    return found
