"""What only a simulator knows: the Bayes optimum of the evaluated slates, and which dropped events were noise.

Runs after the evaluation, on exactly the examples and slates that were ranked, where the recipe's source is a
simulation. The truth is read here and nowhere else: no verbalizer, recommender or reward ever sees it, and it is not
written down beside them. Only counts and bounds per example leave this stage.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from recsys.errors import InputError
from recsys.evaluation import own_slates
from recsys.outcomes import seed_outcomes
from recsys.simulator.bayes import bayes_optimum
from recsys.simulator.source import settings_of, truth_of
from recsys.storage import read_json, read_parquet, write_parquet
from verbalize.pipeline import Context
from verbalize.recipe import Recipe
from verbalize.recipe_sections import LEARNED
from verbalize.stages import samples
from verbalize.stages.log_files import load_log
from verbalize.stages.policy_controls import ACTIONS
from verbalize.verbalizers.actions import KEEP

NOISE, BOUND = "noise.parquet", "bound.parquet"
BAYES = "bayes_optimum"
COUNTS = ("shown", "noise", "dropped", "noise_dropped")
_EVENT = ("user_id", "item_id", "event_time", "event_type")


def run(recipe: Recipe, context: Context) -> Mapping[str, Any]:
    """Writes bound.parquet (example_id, user_id, slate_index, kind, bound) and, for action policies, noise.parquet."""
    truth = truth_of(recipe.source.path, recipe.source.inline)
    ranked = read_parquet(context.inputs["evaluate"] / "decisions.parquet")["example_id"].unique()
    shown = pl.col("example_id").is_in(ranked.implode())
    examples = read_parquet(context.inputs["examples"] / "examples.parquet", where=shown)
    facts: dict[str, Any] = {}
    if recipe.policy.kind == "actions":
        noise = noise_of(recipe, context, examples, truth)
        write_parquet(noise, context.folder / NOISE)
        sums = dict(noise.group_by("arm").agg(pl.col("value").sum()).iter_rows())
        facts["events"] = {name: sums[name] / len(recipe.seeds) for name in COUNTS}
    context.progress.step("oracle", 1, 2, "dropped noise")
    testing = recipe.evaluation.split == "test"
    slates = own_slates(examples) if testing else samples.load_slates(context.inputs["examples"], examples)
    bound = bayes_optimum(
        settings_of(recipe.source.path, recipe.source.inline),
        examples,
        slates,
        truth,
        load_log(context.inputs["logs"]),
        recipe.examples.slate,
    )
    users = examples.select("example_id", "user_id")
    bound = bound.join(users, on="example_id", how="left", maintain_order="left")
    write_parquet(bound.select("example_id", "user_id", "slate_index", "kind", "bound"), context.folder / BOUND)
    facts |= {
        "targets": dict(bound.unique("example_id").group_by("kind").len().sort("kind").iter_rows()),
        "bayes_recall_at_1": bound["bound"].mean(),
    }
    context.progress.step("oracle", 2, 2, "Bayes optimum")
    return facts


def noise_of(recipe: Recipe, context: Context, examples: pl.DataFrame, truth: pl.DataFrame) -> pl.DataFrame:
    """example_id, user_id, arm (one of COUNTS), seed, value: events of each evaluated history under each seed.

    Raises InputError where the evaluation kept no actions of a seed, as it was carried out by an earlier version.
    """
    path = context.inputs["evaluate"] / ACTIONS
    chosen = read_parquet(path) if path.exists() else pl.DataFrame(schema={"seed": pl.Int32})
    tables = []
    for seed in recipe.seeds:
        if (mine := chosen.filter(pl.col("seed") == seed)).is_empty():
            raise InputError(
                f"{path} without actions of seed {seed}",
                "was written by a version that kept none, and noise is counted among what was dropped",
                f"delete {path.parent}; the same command makes it again",
            )
        decided = examples.join(mine.select("example_id", "actions"), on="example_id", maintain_order="left")
        shown = decided.with_columns(history=pl.col("history").list.tail(pl.col("actions").list.len()))
        counted = count_dropped(shown, decided["actions"].to_list(), truth)
        tables.append(counted.unpivot(COUNTS, index=["example_id", "user_id"], variable_name="arm"))
        tables[-1] = tables[-1].with_columns(pl.col("value").cast(pl.Float64), seed=pl.lit(seed, pl.Int64))
    return pl.concat(tables)


def count_dropped(examples: pl.DataFrame, actions: Sequence[Sequence[int]], truth: pl.DataFrame) -> pl.DataFrame:
    """example_id, user_id and how many events of each history were shown, noise, dropped, and both: one row each.

    `examples` has user_id and the history that was decided; `actions` one list per row, one action per event. Raises
    InputError when an event is not of this simulation.
    """
    events = (
        examples.select("example_id", "user_id", "history", action=pl.Series(actions, dtype=pl.List(pl.Int8)))
        .explode("history", "action")
        .unnest("history")
        .select("example_id", *_EVENT, dropped=pl.col("action") < KEEP)
        .join(truth.select(*_EVENT, "is_noise"), on=_EVENT, how="left", maintain_order="left")
    )
    if events["is_noise"].null_count():
        raise InputError(
            f"{events['is_noise'].null_count()} of {len(events)} shown events",
            "are not of this simulation",
            "name the simulation the log came from",
        )
    return events.group_by("example_id", "user_id", maintain_order=True).agg(
        shown=pl.len(),
        noise=pl.col("is_noise").sum(),
        dropped=pl.col("dropped").sum(),
        noise_dropped=(pl.col("dropped") & pl.col("is_noise")).sum(),
    )


def bayes_values(inputs: Mapping[str, Path]) -> pl.DataFrame:
    """example_id, user_id, arm, seed, value: Recall@1 of every arm, and the Bayes optimum of the same slates."""
    decisions = read_parquet(inputs["evaluate"] / "decisions.parquet")
    hits = seed_outcomes(decisions, "recall@1").select(
        "example_id", "user_id", pl.concat_str("verbalizer", pl.lit("/"), "recommender").alias("arm"), "seed", "value"
    )
    bound = read_parquet(inputs["oracle"] / BOUND)
    best = bound.group_by("example_id", "user_id", maintain_order=True).agg(value=pl.col("bound").mean())
    return pl.concat(
        [hits, best.select("example_id", "user_id", arm=pl.lit(BAYES), seed=pl.lit(0, pl.Int64), value="value")]
    )


def sentences(inputs: Mapping[str, Path], recommender: str, best_template: str) -> list[str]:
    """Accuracy beside the optimum, for discoveries and for what the user knew; and what became of the noise."""
    values = bayes_values(inputs)
    found = []
    for targets, words in (("discovery", "discoveries"), ("known", "works the user knew")):
        try:
            some = samples.of_targets(values, inputs, targets)
        except InputError:  # no such targets among the evaluated
            continue
        means = dict(some.group_by("arm").agg(pl.col("value").mean()).iter_rows())
        best = means[BAYES]
        arms = ", ".join(
            f"{name} {means[f'{name}/{recommender}']:.3f} ({means[f'{name}/{recommender}'] / best:.0%} of it)"
            for name in (LEARNED, best_template)
        )
        found.append(
            f"Recall@1 on {words} ({some['example_id'].n_unique():,} examples): Bayes optimum {best:.3f}, {arms}."
        )
    events = read_json(inputs["oracle"] / "done.json")["facts"].get("events")
    if events:
        shares = [
            f"{events[part] / events[whole]:.0%}" if events[whole] else "none"
            for part, whole in (("noise", "shown"), ("noise_dropped", "dropped"), ("noise_dropped", "noise"))
        ]
        found.append(
            f"Planted noise: {shares[0]} of the shown events; of the events the learned policy drops {shares[1]} are "
            f"noise, and it drops {shares[2]} of the noise."
        )
    return found
