"""The pool: every candidate action sequence of every training example, scored on several slates."""

from collections.abc import Mapping
from typing import Any

import polars as pl

from recsys.evaluation import decide_in_chunks, pool_headroom
from recsys.storage import read_parquet, write_parquet
from verbalize.optimize.rewards import ConfiguredReward
from verbalize.optimize.scoring import RewardScorer
from verbalize.pipeline import Context
from verbalize.recipe import Recipe
from verbalize.stages import data
from verbalize.stages.recommender import open_recommender
from verbalize.verbalizers.action_pool import CANDIDATES, candidate_actions
from verbalize.verbalizers.actions import execute
from verbalize.verbalizers.base import verbalizer_inputs

HEADROOM_METRIC = "mrr"


def run(recipe: Recipe, context: Context) -> Mapping[str, Any]:
    """Writes pool.parquet (decisions of every candidate, M slates) and returns the cross-fitted headroom on training users."""
    recommender = open_recommender(recipe, context.inputs)
    examples = data.training_sample(recipe, context.inputs["examples"])
    slates = data.load_slates(context.inputs["examples"], examples)
    inputs = verbalizer_inputs(examples)
    actions = candidate_actions(inputs, recipe.policy.actions, recipe.examples.seed)
    parts = []
    for number, (name, chosen) in enumerate(actions.items()):
        texts = execute(inputs, chosen, recipe.policy.actions)
        parts.append(decide_in_chunks(recommender, examples, texts, verbalizer=name, slates=slates, chunk_size=32,
                                      folder=context.folder / "parts" / name))
        context.progress.step("pool", number + 1, len(actions), name)
    decisions = pl.concat(parts)
    write_parquet(decisions, context.folder / "decisions.parquet")
    return {"examples": len(examples), "users": examples["user_id"].n_unique(), "candidates": list(CANDIDATES),
            "headroom_recall_at_1": headroom(decisions, recommender.name)}


def headroom(decisions: pl.DataFrame, recommender: str) -> dict[str, float] | None:
    """What choosing a candidate per user gains over the best constant choice; None where fewer than two users can be halved."""
    if decisions.group_by("user_id").agg(pl.col("example_id").n_unique()).filter(pl.col("example_id") > 1).height < 2:
        return None
    found = pool_headroom(decisions, recommender, choose_by=HEADROOM_METRIC, shrinkage=5.0, resamples=1000)
    return {name: getattr(found, name) for name in ("value", "low", "high", "chosen", "constant", "naive_example_oracle")}


def rewarded_pool(recipe: Recipe, context: Context) -> pl.DataFrame:
    """example_id, candidate, reward of the pool: the recipe's reward of the decisions, in the pool's order."""
    from verbalize.optimize.rewards import Ranking
    from verbalize.optimize.scoring import no_traits

    decisions = read_parquet(context.inputs["pool"] / "decisions.parquet").sort("example_id", "verbalizer", "slate_index")
    grouped = decisions.group_by("example_id", "verbalizer", maintain_order=True).agg("scores", "target_index", "rank")
    rankings = [[Ranking(*one) for one in zip(*row, strict=True)]
                for row in grouped.select("scores", "target_index", "rank").iter_rows()]
    ids = grouped["example_id"].to_list()
    scored = ConfiguredReward(recipe.reward)(no_traits(ids, [""] * len(ids)), rankings)
    return grouped.select("example_id", candidate="verbalizer").with_columns(reward=pl.Series([one.reward for one in scored]))


def reward_scorer(recipe: Recipe, context: Context, recommender: Any, examples: pl.DataFrame) -> RewardScorer:
    """The reward of (example, text) pairs of these examples, over their redrawn slates."""
    from verbalize.optimize.traits import text_traits

    titles = None
    if recipe.policy.kind == "rewrite" or recipe.reward.faithfulness_weight:
        titles = read_parquet(context.inputs["logs"] / "items.parquet")["title"].to_list()
    traits = text_traits(examples, recommender.lm.tokenizer, titles)
    return RewardScorer(recommender, data.load_slates(context.inputs["examples"], examples), ConfiguredReward(recipe.reward), traits)
