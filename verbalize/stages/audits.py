"""What is checked after scoring and never fed back: identical slates, accidental favourites, mentions of the target."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from recsys.logs.slates import count_future_favourites
from recsys.recommenders.candidates import slates_hash
from verbalize.recipe import Recipe
from verbalize.stages.log_files import load_log
from verbalize.verbalizers.faithfulness import faithfulness, mentions_target_or_slate


def audits(
    recipe: Recipe,
    inputs: Mapping[str, Path],
    examples: pl.DataFrame,
    texts: Mapping[tuple[str, int], list[str]],
    shown: Mapping[str, str],
) -> dict[str, Any]:
    """Hash of the slates as every arm saw them; negatives the user came to like; faithfulness and mentions by arm.

    A negative that the user touches after the cutoff stays: removing it would let the future choose the slate. A
    mention of the target can only come from another item of the same title, or from a rewriting model's guess.
    """
    log = load_log(inputs["logs"], examples["user_id"])
    rule = recipe.examples.engaged or log.engaged
    assert rule is not None  # examples could not have been built without it
    titles = log.items["title"].to_list()
    by_arm = {}
    for (name, seed), written in texts.items():
        asserted = faithfulness(written, examples.select("example_id", "cutoff_time", "history"), titles)
        mentions = mentions_target_or_slate(written, examples, log.items)
        by_arm[f"{name}@{seed}"] = {
            "faithful": asserted["share_faithful"].mean(),
            "mentions_target": mentions["mentions_target"].mean(),
        }
    return {
        "slates_sha256": slates_hash(examples.select("example_id", "slate"), shown),
        "accidental_favourites": count_future_favourites(examples, examples, log, rule),
        "texts": by_arm,
    }
