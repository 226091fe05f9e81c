"""How much of a reward is luck: what dropping a single event does to it, by kind of event, where the noise is known.

    python experiments/benchmarks/event_effects.py     a quarter of an hour for the encoder's training, then minutes
    ... --out DIR                                      a trial of it

A policy of actions learns from rewards which events to drop. Here nothing is learned: every event of every training
example of `experiments/encoder_simulator.yaml` (world 4) is dropped once, all others kept with metadata, and the reward
compared with that of keeping all. The mean by kind of event is what there is to learn, its spread over events the luck
in which it hides; their ratio says how many examples a learner has to see, however it learns. Rewards are those of one
target, and of four of the same user's (`reward.targets`). Validation and test users stay closed.
"""

import secrets
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from recording import ROOT, enter, parser_of, record, say

from verbalize.pipeline import Context, run_stages
from verbalize.recipe import Recipe, load_recipe
from verbalize.report.artefacts import values_table
from verbalize.report.claims import Estimator
from verbalize.stages import samples, stages_of
from verbalize.stages.pool import reward_scorer
from verbalize.stages.recommender import open_recommender
from verbalize.verbalizers.actions import DROP, KEEP_METADATA, execute
from verbalize.verbalizers.base import verbalizer_inputs

RECIPE = ROOT / "experiments" / "encoder_simulator.yaml"
WORLD = ["source.inline.seed=4"]
TARGETS = (1, 4)
KINDS = {
    "preview": pl.col("event_type") == "preview",
    "short_play": (pl.col("event_type") == "play") & (pl.col("completion") <= 0.1),
    "watched_play": (pl.col("event_type") == "play") & (pl.col("completion") > 0.8),
}
NOTHING = "nothing"
Z = 3.0
"""The effect over its standard error at which a learner could be said to have seen it."""


def effects(recipe: Recipe, inputs: dict[str, Path], count: int) -> pl.DataFrame:
    """example_id, user_id, event_type, completion, effect: the reward with the event dropped less that with all kept,
    for every shown event of `count` training examples."""
    context = Context(inputs["examples"], inputs)
    examples = samples.training_sample(recipe, inputs["examples"]).head(count)
    score = reward_scorer(recipe, context, open_recommender(recipe, inputs), examples)
    shown = verbalizer_inputs(examples)
    lengths = examples["history"].list.len().to_list()

    def rewards(dropped: int | None) -> np.ndarray:
        actions = [[DROP if place == dropped else KEEP_METADATA for place in range(events)] for events in lengths]
        texts = execute(shown, actions, recipe.policy.actions)
        return np.array([scored.reward for scored in score(examples["example_id"].to_list(), texts)])

    kept, tables = rewards(None), []
    for place in range(max(lengths)):
        event = examples.select(
            "example_id",
            "user_id",
            pl.col("history").list.get(place, null_on_oob=True).struct.field("event_type", "completion"),
            effect=pl.Series(rewards(place) - kept),
        )
        tables.append(event.filter(pl.Series([place < events for events in lengths])))
        say(f"event {place + 1} of {max(lengths)} dropped, {recipe.reward.targets} targets")
    return pl.concat(tables)


def summary(table: pl.DataFrame, kind: str) -> dict[str, Any]:
    """Of the events of a kind: how many, the effect of dropping one, its spread, and the events it takes to see it."""
    found = table.filter(KINDS[kind])["effect"]
    mean, spread = float(found.mean()), float(found.std())  # type: ignore[arg-type]
    needed = int(np.ceil((Z * spread / mean) ** 2))
    return {"events": len(found), "mean": round(mean, 5), "spread": round(spread, 5), "events_needed": needed}


def main() -> None:
    parser = parser_of(__doc__, repeats=None)
    parser.add_argument("--examples", type=int, default=400, help="training examples")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="whose store of stages is used")
    arguments = parser.parse_args()
    figures: list[dict[str, Any]] = []
    evidence: list[pl.DataFrame] = []
    shared = [*WORLD, f"sample.train={arguments.examples}", "sample.train_per_user=4"]
    for targets in TARGETS:
        recipe = load_recipe(RECIPE, [*shared, f"reward.targets={targets}"])
        inputs = run_stages(stages_of(recipe, ""), arguments.runs / "artefacts", until="recommender")
        table = effects(recipe, inputs, arguments.examples)
        for kind, chosen in KINDS.items():
            figures.append({"targets": targets, "kind": kind, **summary(table, kind)})
            say(f"{figures[-1]}")
            means = table.filter(chosen).group_by("example_id", "user_id", maintain_order=True)
            one = means.agg(value=pl.col("effect").mean()).with_columns(seed=0)
            arm = f"{kind}_{targets}"
            evidence += [one.with_columns(arm=pl.lit(arm)), one.with_columns(arm=pl.lit(f"{NOTHING}_{arm}"), value=0.0)]
    artefact = record(
        "event_effects",
        arguments.out,
        values_table(pl.concat(evidence), secrets.token_hex(16)),
        settings={"recipe": RECIPE.name, "overrides": WORLD, "examples": arguments.examples, "z": Z},
        packages=("torch", "transformers", "polars"),
        figures={"effects": figures},
        suffix=".csv.gz",
    )
    where = "Simulated plays, training users, a trained sentence encoder reads: reward"
    for kind in KINDS:
        arm = f"{kind}_{TARGETS[-1]}"
        enter(
            arguments.out,
            f"simulator.drop_{kind}",
            f"{where} of dropping one {kind.replace('_', ' ')} minus keeping it, others kept, {TARGETS[-1]} targets",
            unit="nats",
            estimator=Estimator("mean_difference", {"a": arm, "b": f"{NOTHING}_{arm}"}),
            artefact=artefact,
            command="python experiments/benchmarks/event_effects.py",
        )


if __name__ == "__main__":
    main()
