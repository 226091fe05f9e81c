"""What each event is worth to the reader: the reward with one event's action changed, all others kept with metadata.

The pool asks which of a dozen rules serves best, so a policy that imitates it can find nothing that no rule says. Here
nothing is scripted: every event of every training example is set to each action by itself, and what that does to the
reward is kept. It costs two texts per event, the drops being one text, and keeping everything once.
"""

from collections.abc import Mapping
from typing import Any

import polars as pl

from recsys.storage import read_parquet, write_parquet
from verbalize.optimize.slot_credit import Changed, changed_rewards
from verbalize.pipeline import Context
from verbalize.recipe import Recipe
from verbalize.stages import samples
from verbalize.stages.pool import reward_scorer
from verbalize.stages.recommender import open_recommender, own_facts
from verbalize.verbalizers.actions import ALPHABET, DROP, KEEP, KEEP_METADATA, execute, history_lengths
from verbalize.verbalizers.base import verbalizer_inputs

STAGE = "effects"
TABLE = "effects.parquet"
CHUNK = 32  # examples whose texts are rewarded together, and kept when the run is killed


def run(recipe: Recipe, context: Context) -> Mapping[str, Any]:
    """Writes effects.parquet: example_id, place (0 oldest of the shown), action, effect in the reward's unit."""
    recommender = open_recommender(recipe, context.inputs)
    examples = samples.training_sample(recipe, context.inputs["examples"])
    inputs, config = verbalizer_inputs(examples), recipe.policy.actions
    rows = {example_id: row for row, example_id in enumerate(inputs["example_id"])}
    changed = changed_rewards(
        lambda ids, actions: execute(inputs[[rows[key] for key in ids]], actions, config),
        reward_scorer(recipe, context, recommender, examples),
    )
    parts = []
    for start in range(0, len(inputs), CHUNK):
        path = context.folder / "parts" / f"{start:07d}.parquet"
        if not path.exists():
            chunk = inputs[start : start + CHUNK]
            write_parquet(effects(chunk["example_id"].to_list(), history_lengths(chunk, config), changed), path)
        parts.append(read_parquet(path))
        context.progress.step(STAGE, min(start + CHUNK, len(inputs)), len(inputs))
    table = pl.concat(parts)
    write_parquet(table, context.folder / TABLE)
    return {
        "examples": len(examples),
        "users": examples["user_id"].n_unique(),
        "events": len(table) // len(ALPHABET),
        "mean_effect_of_dropping": table.filter(pl.col("action") == DROP)["effect"].mean(),
        "mean_effect_of_title_alone": table.filter(pl.col("action") == KEEP)["effect"].mean(),
        **own_facts(recommender),
    }


def effects(example_ids: list[str], lengths: list[int], changed: Changed) -> pl.DataFrame:
    """The rows of `effects.parquet` of some examples with histories of these lengths; one without events has none."""
    tables = changed(example_ids, [[KEEP_METADATA] * length for length in lengths])
    parts = [
        pl.DataFrame(
            {
                "example_id": [key] * table.size,
                "place": [place for place in range(len(table)) for _ in ALPHABET],
                "action": list(range(len(ALPHABET))) * len(table),
                "effect": (table - table[:, [KEEP_METADATA]]).ravel(),
            },
            schema={"example_id": pl.String, "place": pl.Int64, "action": pl.Int8, "effect": pl.Float64},
        )
        for key, table in zip(example_ids, tables, strict=True)
    ]
    return pl.concat(parts)
