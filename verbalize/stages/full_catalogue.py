"""The evaluated targets among the whole catalogue, for every arm whose recommender can rank one.

A stage of its own behind `evaluate`: it reads the texts that stage wrote for the same examples, so asking for it writes
no text and ranks no slate again. Texts are read by the sentence encoder; a language model would have to read every item
for every text, so in its modes only the recommenders of histories are here, and the report says so.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import polars as pl

from recsys.catalogue_decisions import METRICS, rank_catalogue
from recsys.comparison import summarise
from recsys.evaluation import aligned_texts
from recsys.logs.eligible import Eligible
from recsys.recommenders.full_catalogue import CatalogueRanker
from recsys.storage import read_json, read_parquet, write_parquet
from verbalize.pipeline import Context
from verbalize.recipe import Recipe
from verbalize.stages import baselines, samples
from verbalize.stages.log_files import load_log
from verbalize.stages.recommender import open_recommender, own_facts

STAGE = "catalogue"
RANKS = "ranks.parquet"


def run(recipe: Recipe, context: Context) -> Mapping[str, Any]:
    """Writes ranks.parquet (`recsys.catalogue_decisions`), one row per example, arm and seed. Resumes arm by arm."""
    examples = evaluated(recipe, context)
    eligible = Eligible(examples, load_log(context.inputs["logs"], examples["user_id"]))
    parts = []
    facts: dict[str, Any] = {}
    if recipe.recommender.mode == "embedding":
        recommender = open_recommender(recipe, context.inputs)
        for verbalizer, seed, texts in text_arms(context, recommender.name, examples):
            parts.append(_kept(context, recommender, examples, texts, eligible, verbalizer, seed))
        facts |= own_facts(recommender)
    for fitted in baselines.fitted(recipe, context.inputs):
        assert isinstance(fitted, CatalogueRanker)
        nothing = [""] * len(examples)
        parts.append(_kept(context, fitted, examples, nothing, eligible, baselines.VERBALIZER, 0))
    ranks = pl.concat(parts)
    write_parquet(ranks, context.folder / RANKS)
    competing = parts[0]["slate_size"]
    return {
        "examples": len(examples),
        "users": examples["user_id"].n_unique(),
        "arms": ranks.select("verbalizer", "recommender").n_unique(),
        "catalogue": len(eligible.item_ids),
        "candidates": {"fewest": competing.min(), "mean": competing.mean(), "most": competing.max()},
        **facts,
    }


def evaluated(recipe: Recipe, context: Context) -> pl.DataFrame:
    """The examples that `evaluate` ranked."""
    if recipe.evaluation.split == "test":
        return samples.load_examples(context.inputs["examples"], "test", recipe.sample.test)
    return samples.validation_samples(recipe, context.inputs["examples"])[1]


def text_arms(context: Context, recommender: str, examples: pl.DataFrame) -> Iterator[tuple[str, int, list[str]]]:
    """(verbalizer, seed, one text per example) of every arm that `recommender` read, in the order of the evaluation."""
    folder = context.inputs["evaluate"]
    decided = read_parquet(folder / "decisions.parquet").filter(pl.col("recommender") == recommender)
    written = read_parquet(folder / "verbalizations.parquet")
    named = set()
    for verbalizer, seed in decided.select("verbalizer", "seed").unique(maintain_order=True).rows():
        # The first seed of an arm bears the arm's name in the table of texts, the others name@seed.
        name = f"{verbalizer}@{seed}" if verbalizer in named else verbalizer
        named.add(verbalizer)
        yield verbalizer, seed, aligned_texts(examples, written, name)


def table(context: Context) -> pl.DataFrame:
    """Arms with intervals over users (`recsys.comparison.summarise`)."""
    return summarise(read_parquet(context.inputs[STAGE] / RANKS), METRICS)


def sentence(recipe: Recipe, context: Context) -> str:
    """Who competed, and which arms are missing; empty where the recipe did not ask."""
    if STAGE not in context.inputs:
        return ""
    found = read_json(context.inputs[STAGE] / "done.json")["facts"]
    said = (
        "Whole catalogue: each target among all items that were available before it and that the user had not touched, "
        f"{found['candidates']['fewest']:,} to {found['candidates']['most']:,} of {found['catalogue']:,}."
    )
    if recipe.recommender.mode != "embedding":
        said += f" Texts are not in that table: a {recipe.recommender.mode} recommender scores slates only."
    return said


def _kept(
    context: Context,
    ranker: CatalogueRanker,
    examples: pl.DataFrame,
    texts: list[str],
    eligible: Eligible,
    verbalizer: str,
    seed: int,
) -> pl.DataFrame:
    """The arm's ranks, from parts/ where they lie there already."""
    path = context.folder / "parts" / f"{verbalizer}-{ranker.name}-{seed}.parquet"
    if not path.exists():

        def tell(done: int) -> None:
            context.progress.step(STAGE, done, len(examples), f"{verbalizer} × {ranker.name}, seed {seed}")

        ranked = rank_catalogue(ranker, examples, texts, eligible, verbalizer=verbalizer, seed=seed, progress=tell)
        write_parquet(ranked, path)
    return read_parquet(path)
