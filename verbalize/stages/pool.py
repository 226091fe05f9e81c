"""The pool: every candidate action sequence of every training example, scored on several slates."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from recsys.evaluation import decide_in_chunks, pool_headroom
from recsys.logs.eligible import Eligible
from recsys.storage import read_parquet, write_parquet
from verbalize.optimize.catalogue_reward import with_catalogue
from verbalize.optimize.rewards import CATALOGUE, ConfiguredReward, Ranking, Scored
from verbalize.optimize.scoring import RewardScorer, TextTraitsOf
from verbalize.pipeline import Context
from verbalize.recipe import Recipe
from verbalize.stages import samples
from verbalize.stages.log_files import load_log
from verbalize.stages.recommender import length_tokenizer, open_recommender, own_facts
from verbalize.verbalizers.action_pool import CANDIDATES, candidate_actions
from verbalize.verbalizers.actions import execute
from verbalize.verbalizers.base import verbalizer_inputs

HEADROOM_METRIC = "mrr"
REWARDS = "rewards.parquet"


def run(recipe: Recipe, context: Context) -> Mapping[str, Any]:
    """Writes decisions.parquet (every candidate, M slates); returns the cross-fitted headroom on training users."""
    recommender = open_recommender(recipe, context.inputs)
    examples = samples.training_sample(recipe, context.inputs["examples"])
    slates = samples.load_slates(context.inputs["examples"], examples)
    inputs = verbalizer_inputs(examples)
    actions = candidate_actions(inputs, recipe.policy.actions, recipe.examples.seed)
    texts = {name: execute(inputs, chosen, recipe.policy.actions) for name, chosen in actions.items()}
    parts = []
    for number, (name, written) in enumerate(texts.items()):
        folder = context.folder / "parts" / name
        parts.append(
            decide_in_chunks(
                recommender, examples, written, verbalizer=name, slates=slates, chunk_size=32, folder=folder
            )
        )
        context.progress.step("pool", number + 1, len(texts), name)
    decisions = pl.concat(parts)
    write_parquet(decisions, context.folder / "decisions.parquet")
    traits = traits_of(recipe, context, recommender, examples, executed=True)
    ids = inputs["example_id"].to_list()
    write_parquet(rewarded(candidate_scores(recipe, decisions, texts, ids, traits), ids), context.folder / REWARDS)
    return {
        "examples": len(examples),
        "users": examples["user_id"].n_unique(),
        "candidates": list(CANDIDATES),
        "headroom_recall_at_1": headroom(decisions, recommender.name),
        **own_facts(recommender),
    }


def headroom(decisions: pl.DataFrame, recommender: str) -> dict[str, float] | None:
    """What choosing a candidate per user gains over the best constant one; None with fewer than two halvable users."""
    if decisions.group_by("user_id").agg(pl.col("example_id").n_unique()).filter(pl.col("example_id") > 1).height < 2:
        return None
    found = pool_headroom(decisions, recommender, choose_by=HEADROOM_METRIC, shrinkage=5.0, resamples=1000)
    return {
        name: getattr(found, name) for name in ("value", "low", "high", "chosen", "constant", "naive_example_oracle")
    }


def candidate_scores(
    recipe: Recipe,
    decisions: pl.DataFrame,
    texts: Mapping[str, Sequence[str]],
    example_ids: Sequence[str],
    traits: TextTraitsOf,
) -> dict[str, list[Scored]]:
    """Candidate -> the recipe's reward of its text for every example, with its components."""
    grouped = decisions.sort("slate_index").group_by("example_id", "verbalizer").agg("scores", "target_index", "rank")
    rankings = {
        (example_id, name): [Ranking(np.array(one), target, rank) for one, target, rank in zip(*lists, strict=True)]
        for example_id, name, *lists in grouped.iter_rows()
    }
    reward = ConfiguredReward(recipe.reward)
    return {
        name: reward(traits(example_ids, written), [rankings[example_id, name] for example_id in example_ids])
        for name, written in texts.items()
    }


def rewarded(scores: Mapping[str, Sequence[Scored]], example_ids: Sequence[str]) -> pl.DataFrame:
    """example_id, reward, candidate: of every candidate of every example, ordered by example."""
    tables = []
    for name, scored in scores.items():
        rewards = [one.reward for one in scored]
        tables.append(pl.DataFrame({"row": range(len(scored)), "example_id": example_ids, "reward": rewards}))
        tables[-1] = tables[-1].with_columns(candidate=pl.lit(name))
    return pl.concat(tables).sort("row", maintain_order=True).drop("row")


def reward_scorer(recipe: Recipe, context: Context, recommender: Any, examples: pl.DataFrame) -> RewardScorer:
    """The reward of (example, text) pairs of these examples, over their redrawn slates and, where the recipe asks for
    more targets, over those of the same user's next ones."""
    traits = traits_of(recipe, context, recommender, examples)
    slates = samples.rewarded_slates(context.inputs["examples"], examples, recipe.reward.targets)
    return RewardScorer(recommender, slates, ConfiguredReward(recipe.reward), traits)


def traits_of(
    recipe: Recipe, context: Context, recommender: Any, examples: pl.DataFrame, executed: bool = False
) -> TextTraitsOf:
    """Compression and faithfulness of texts; `executed` actions are faithful by construction and are not checked. The
    target's place in the catalogue too, where the recipe pays for that."""
    from verbalize.optimize.traits import text_traits

    titles = None
    if recipe.policy.kind == "rewrite" and not executed:
        titles = read_parquet(context.inputs["logs"] / "items.parquet")["title"].to_list()
    traits = text_traits(examples, length_tokenizer(recipe), titles)
    if recipe.reward.kind != CATALOGUE:
        return traits
    eligible = Eligible(examples, load_log(context.inputs["logs"], examples["user_id"]))
    return with_catalogue(traits, recommender, eligible, recipe.reward.negatives_temperature)
